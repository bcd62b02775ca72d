"""The vocabulary of SheafDB: ids, types, schema, catalog, errors, clock, limits. No I/O here."""
