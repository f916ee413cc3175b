"""`pixtral teams | keys | prices | usage`: the admin API, from a shell."""
