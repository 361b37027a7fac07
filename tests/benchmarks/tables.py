"""Like tables that statements are measured on: without triggers, with the barest of them, and ours."""

from tests.support import Connection

TABLES = ("plain", "appended", "docs")

# As little as a trigger that notes keys can do.
_APPEND = """
CREATE TABLE appended_queue (id bigint);
CREATE FUNCTION append() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO appended_queue (id) SELECT id FROM new_rows;
  RETURN NULL;
END $$;
CREATE TRIGGER inserted AFTER INSERT ON appended REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION append();
CREATE TRIGGER updated AFTER UPDATE ON appended REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION append();
"""


def make_tables(connection: Connection, partitions: int = 0) -> None:
    """The three of them, empty, in place of `docs`; no sync yet."""
    connection.execute("DROP TABLE docs")
    by = "PARTITION BY HASH (id)" if partitions else ""
    for table in TABLES:
        connection.execute(
            f"CREATE TABLE {table} (id bigint PRIMARY KEY, body text, views int DEFAULT 0) {by}".encode()
        )
        connection.execute(f"ALTER TABLE {table} ALTER body SET STORAGE EXTERNAL".encode())
        for place in range(partitions):
            connection.execute(
                f"CREATE TABLE {table}_{place} PARTITION OF {table}"
                f" FOR VALUES WITH (MODULUS {partitions}, REMAINDER {place})".encode()
            )
    connection.execute(_APPEND)
