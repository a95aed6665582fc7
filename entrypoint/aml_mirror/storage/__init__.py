"""Access to Azure: the login, the meaning of its errors, the clients of its storage."""
