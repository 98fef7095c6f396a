"""How the shop's rows cross between the shapes of 0001 and 0002, both ways. product and order_line cross by name."""

from dbsync.etl import Crossing, table

forward = Crossing(
    table(
        "customer",
        key={"customer": "id"},
        select="""SELECT id, email,
                   CASE WHEN last_name = '' THEN first_name ELSE first_name || ' ' || last_name END AS full_name
            FROM customer""",
    ),
    table(
        "customer_address",
        key={"customer": "id"},
        select="SELECT id AS customer_id, street, city, postcode FROM customer",
    ),
    table(
        "orders",
        key={"orders": "id"},
        select="SELECT id, token, customer_id, placed, total_cents AS total FROM orders",
    ),
)

# Which part of 'Mary Ann Berg' is the first name cannot be told from the one column. A row whose full name
# did not change keeps its two names as they were; only a new or renamed customer is split at the first blank.
reverse = Crossing(
    table(
        "customer",
        key={"customer": "id", "customer_address": "customer_id"},
        select="""SELECT c.id, c.email,
                   CASE WHEN instr(c.full_name, ' ') > 0
                        THEN substr(c.full_name, 1, instr(c.full_name, ' ') - 1) ELSE c.full_name END AS first_name,
                   CASE WHEN instr(c.full_name, ' ') > 0
                        THEN substr(c.full_name, instr(c.full_name, ' ') + 1) ELSE '' END AS last_name,
                   coalesce(a.street, '') AS street, coalesce(a.city, '') AS city, coalesce(a.postcode, '') AS postcode
            FROM customer AS c LEFT JOIN customer_address AS a ON a.customer_id = c.id""",
        loses={
            "first_name": "the full name is split at the first blank",
            "last_name": "the full name is split at the first blank",
        },
    ),
    table(
        "orders",
        key={"orders": "id"},
        select="SELECT id, token, customer_id, placed, total AS total_cents FROM orders",
    ),
)
