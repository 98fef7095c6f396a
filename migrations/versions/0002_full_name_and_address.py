"""One name a customer, the address in a table of its own, and orders.total_cents called total.

The rows that are there already are moved here, in SQL; what arrives from the other side afterwards
crosses by etl/0002_full_name_and_address.py, which says the same.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "customer_address",
        sa.Column("customer_id", sa.Integer, sa.ForeignKey("customer.id"), primary_key=True),
        sa.Column("street", sa.Text, nullable=False, server_default=""),
        sa.Column("city", sa.Text, nullable=False, server_default=""),
        sa.Column("postcode", sa.Text, nullable=False, server_default=""),
    )
    op.execute(
        "INSERT INTO customer_address (customer_id, street, city, postcode) "
        "SELECT id, street, city, postcode FROM customer"
    )
    op.add_column("customer", sa.Column("full_name", sa.Text, nullable=False, server_default=""))
    op.execute(
        "UPDATE customer SET full_name = "
        "CASE WHEN last_name = '' THEN first_name ELSE first_name || ' ' || last_name END"
    )
    for column in ("first_name", "last_name", "street", "city", "postcode"):
        op.drop_column("customer", column)
    op.alter_column("orders", "total_cents", new_column_name="total")


def downgrade() -> None:
    op.alter_column("orders", "total", new_column_name="total_cents")
    for column in ("first_name", "last_name", "street", "city", "postcode"):
        op.add_column("customer", sa.Column(column, sa.Text, nullable=False, server_default=""))
    op.execute(
        "UPDATE customer SET "
        "first_name = CASE WHEN instr(full_name, ' ') > 0 "
        "THEN substr(full_name, 1, instr(full_name, ' ') - 1) ELSE full_name END, "
        "last_name = CASE WHEN instr(full_name, ' ') > 0 "
        "THEN substr(full_name, instr(full_name, ' ') + 1) ELSE '' END"
    )
    for column in ("street", "city", "postcode"):
        op.execute(
            f"UPDATE customer SET {column} = "
            f"coalesce((SELECT a.{column} FROM customer_address a WHERE a.customer_id = customer.id), '')"
        )
    op.drop_column("customer", "full_name")
    op.drop_table("customer_address")
