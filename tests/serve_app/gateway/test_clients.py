"""The official clients against the in-process application."""

from tests.serve_app.gateway.client_cases import ClientCases


class TestClients(ClientCases):
    pass
