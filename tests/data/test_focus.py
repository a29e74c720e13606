"""The FOCUS file: mandatory columns, null rules and products of FOCUS 1.2, and sums that are the cost, to the cent.

The rules are written down here from the specification's pages of v1.2. Read next: `src/sageserve/data/billing/focus.py`.
"""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sageserve.data.billing.allocations import AMOUNTS, UNALLOCATED, Allocation
from sageserve.data.billing.focus import COLUMNS, PriceOfGpu, Statement, focus_csv

MANDATORY = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
]
NEVER_NULL = {*MANDATORY, "BillingAccountType", "ChargeFrequency", "ServiceSubcategory"} - {"ChargeClass"}
WHEN = Statement("fleet", "USD", datetime(2026, 11, 30, 12, tzinfo=UTC), timedelta(hours=24))
WHO = (("big", "iw-f", 'a, "b"'), ("big", "niw", ""), (UNALLOCATED,) * 3)
PRICES = {("east", "h100"): (12.29, 7.65875), ("west", "a/100"): (0.1 + 0.2, 0.1)}


@st.composite
def lines(draw: st.DrawFn) -> list[Allocation]:
    made = []
    for region, gpu in PRICES:
        for who in draw(
            st.lists(st.sampled_from([("big", "iw-f", 'a, "b"'), ("big", "niw", ""), (UNALLOCATED,) * 3]), unique=True)
        ):
            some = draw(st.dictionaries(st.sampled_from(AMOUNTS), st.integers(0, 10**7)))
            made.append(replace(Allocation(region, gpu, *who), **some))
    return made


def written(made: list[Allocation]) -> list[dict[str, str]]:
    prices = {}
    for place, (on_demand, reserved) in PRICES.items():
        mine = [line for line in made if (line.region, line.gpu) == place]
        committed = sum(line.total - line.on_demand_busy - line.on_demand_idle - line.on_demand_start for line in mine)
        prices[place] = PriceOfGpu(on_demand, reserved, committed)
    return list(csv.DictReader(io.StringIO(focus_csv(made, prices, WHEN))))


@given(lines())
def test_sums_are_the_cost_and_rules_of_the_specification_hold(made: list[Allocation]) -> None:
    rows = written(made)
    cost = sum(line.total for line in made)
    for column in ("BilledCost", "EffectiveCost"):
        assert sum(Decimal(row[column]) for row in rows) * 100 == cost
    for row in rows:
        assert list(row) == list(COLUMNS)
        usage, committed = row["ChargeCategory"] == "Usage", row["CommitmentDiscountId"]
        assert not [name for name in NEVER_NULL if not row[name]]
        assert not row["ChargeClass"]  # nothing corrects an earlier invoice
        assert bool(row["CommitmentDiscountStatus"]) == bool(usage and committed)
        for name in ("Category", "Name", "Quantity", "Type", "Unit"):
            assert bool(row[f"CommitmentDiscount{name}"]) == bool(committed)
        assert (
            bool(row["ConsumedQuantity"]) == bool(row["ConsumedUnit"]) == (usage and row["CommitmentDiscountStatus"] != "Unused")
        )
        assert (row["PricingCategory"] == "Committed") == bool(usage and committed)
        assert usage or (row["ChargeFrequency"] == "Recurring" and row["EffectiveCost"] == "0.00")
        for price, product in (("ContractedUnitPrice", "ContractedCost"), ("ListUnitPrice", "ListCost")):
            assert abs(Decimal(row[price]) * Decimal(row["PricingQuantity"]) - Decimal(row[product])) < Decimal("1e-9")
        assert not any("e" in row[name].lower() for name in ("PricingQuantity", "ListUnitPrice", "ListCost"))
        if usage:
            tags = json.loads(row["Tags"])
            assert row["SubAccountId"] == tags.get("tenant", "")
            assert UNALLOCATED not in tags.values()
    for name in {row["CommitmentDiscountId"] for row in rows} - {""}:
        mine = [row for row in rows if row["CommitmentDiscountId"] == name]
        bought = [Decimal(row["BilledCost"]) for row in mine if row["ChargeCategory"] == "Purchase"]
        assert sum(bought) == sum(Decimal(row["EffectiveCost"]) for row in mine if row["ChargeCategory"] == "Usage")


def test_pools_that_prefill_and_that_decode_are_told_apart() -> None:
    made = [Allocation("east", "h100", "big", "iw-f", "", on_demand_busy=100, role=role) for role in ("prefill", "decode")]
    rows = written(made)
    assert [row["ResourceId"] for row in rows] == ["east/big/h100/prefill", "east/big/h100/decode"]
    assert [json.loads(row["Tags"])["role"] for row in rows] == ["prefill", "decode"]


def test_every_mandatory_column_is_there_and_dates_are_bounds_in_utc() -> None:
    assert set(MANDATORY) <= set(COLUMNS)
    assert list(COLUMNS) == sorted(COLUMNS)
    (row,) = written([Allocation("east", "h100", "big", "iw-f", "search", on_demand_busy=1229)])
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == ("2026-11-30T12:00:00Z", "2026-12-01T12:00:00Z")
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == ("2026-11-01T00:00:00Z", "2027-01-01T00:00:00Z")
    assert (row["BilledCost"], row["PricingQuantity"], row["PricingUnit"]) == ("12.29", "1", "GPU-Hours")
    assert (row["SubAccountId"], row["ResourceId"]) == ("search", "east/big/h100")
