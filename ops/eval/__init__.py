"""`pixtral eval`: questions with known answers, asked over the REST API and graded."""
