"""How each role is put together as a process of its own. A process imports only its own file."""
