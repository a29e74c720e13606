"""What a run cost as a file that finance loads: FOCUS 1.2, the FinOps Open Cost and Usage Specification, as CSV.

https://focus.finops.org/focus-specification/v1-2/. A commitment is a recurring purchase (BilledCost), what it covers or leaves
unused is usage of it (EffectiveCost), so either sums up to the cost of the run, to the cent. Every mandatory column is
there, and of the others those that say something; a null is an empty field. Read next: `allocations.py`, docs/reference/money.md.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from sageserve.data.billing.allocations import UNALLOCATED, Allocation

VERSION: Final = "1.2"
COLUMNS: Final = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
)
_UNIT: Final = "GPU-Hours"
_WORDS: Final = {"busy": "at work", "idle": "idle", "start": "starting", "unused": "reserved and not used"}
_DIGITS: Final = 12  # of a GPU-hour: its price times it is the amount
Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class PriceOfGpu:
    """What a GPU-hour of one type in one region costs.

    Args:
        on_demand: in the currency.
        reserved: in the currency.
        commitment: cents that all that is reserved costs.
    """

    on_demand: float
    reserved: float
    commitment: int


@dataclass(frozen=True, slots=True)
class Statement:
    """What is the same in all rows.

    Args:
        scenario: whose cost it is: the billing account.
        currency: ISO 4217.
        begins: start of the window, with a zone.
        length: of the window.
    """

    scenario: str
    currency: str
    begins: datetime
    length: timedelta

    def common(self) -> Row:
        """Columns that every row has alike."""
        begins, ends = self.begins.astimezone(UTC), (self.begins + self.length).astimezone(UTC)
        last = max(begins, ends - timedelta(microseconds=1))
        month = last.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return {
            "BillingAccountId": self.scenario,
            "BillingAccountName": self.scenario,
            "BillingAccountType": "Scenario",
            "BillingCurrency": self.currency,
            "BillingPeriodStart": _instant(begins.replace(day=1, hour=0, minute=0, second=0, microsecond=0)),
            "BillingPeriodEnd": _instant((month + timedelta(days=32)).replace(day=1)),
            "ChargePeriodStart": _instant(begins),
            "ChargePeriodEnd": _instant(ends),
            "InvoiceIssuerName": "SageServe",
            "ProviderName": "SageServe",
            "PublisherName": "SageServe",
            "PricingUnit": _UNIT,
            "ServiceCategory": "Compute",
            "ServiceSubcategory": "Virtual Machines",
            "ServiceName": "GPUs of a simulated fleet",
            "SkuMeter": "GPU time",
        }


def focus_csv(lines: Sequence[Allocation], prices: Mapping[tuple[str, str], PriceOfGpu], statement: Statement) -> str:
    """The file.

    Args:
        lines: of a run.
        prices: by region and GPU type, of all that the fleet may hold.
        statement: what all rows share.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    common = statement.common()
    for row in (*_purchases(prices), *_usage(lines, prices)):
        writer.writerow(common | row)
    return text.getvalue()


def _purchases(prices: Mapping[tuple[str, str], PriceOfGpu]) -> Iterator[Row]:
    for (region, gpu), price in prices.items():
        if price.commitment:
            yield {
                **_place(region, gpu, "reserved"),
                **_committed(region, gpu, price.commitment, price.reserved),
                **_priced(price.commitment, price.reserved, price.reserved),
                "BilledCost": _amount(price.commitment),
                "EffectiveCost": _amount(0),
                "ChargeCategory": "Purchase",
                "ChargeFrequency": "Recurring",
                "ChargeDescription": f"{gpu} in {region}: reserved",
                "PricingCategory": "Standard",
                "ResourceId": f"{region}/{gpu}/reserved",
                "ResourceName": f"{region}/{gpu}/reserved",
                "ResourceType": "Commitment",
            }


def _usage(lines: Sequence[Allocation], prices: Mapping[tuple[str, str], PriceOfGpu]) -> Iterator[Row]:
    for line in lines:
        price = prices[line.region, line.gpu]
        for use in ("busy", "idle", "start"):
            if cents := getattr(line, f"on_demand_{use}"):
                yield {
                    **_who(line, use),
                    **_priced(cents, price.on_demand, price.on_demand),
                    **_consumed(cents, price.on_demand),
                    "BilledCost": _amount(cents),
                    "EffectiveCost": _amount(cents),
                    "PricingCategory": "Standard",
                }
            if cents := getattr(line, f"reserved_{use}"):
                yield {
                    **_who(line, use),
                    **_covered(line, price, cents, "Used"),
                    **_consumed(cents, price.reserved),
                }
        if line.unused:
            name = f"{line.region}/{line.gpu}/reserved"
            resource = {"ResourceId": name, "ResourceName": name, "ResourceType": "Commitment"}
            yield {**_who(line, "unused"), **_covered(line, price, line.unused, "Unused"), **resource}


def _place(region: str, gpu: str, sold: str) -> Row:
    return {"RegionId": region, "RegionName": region, "SkuId": gpu, "SkuPriceId": f"{region}/{gpu}/{sold}"}


def _who(line: Allocation, use: str) -> Row:
    """Whose usage it is, of what."""
    known = {"model": line.model, "role": line.role, "tier": line.tier, "tenant": line.tenant}
    known = {name: value for name, value in known.items() if value not in {"", UNALLOCATED}}
    row = {
        **_place(line.region, line.gpu, "on-demand"),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargeDescription": f"{line.gpu} in {line.region}, {_WORDS[use]}: {' '.join(known.values()) or 'nobody'}",
        "Tags": msgspec.json.encode({**known, "use": use}).decode(),
    }
    if "model" in known:
        pool = f"{line.region}/{line.model}/{line.gpu}" + (f"/{line.role}" if line.role else "")
        row |= {"ResourceId": pool, "ResourceName": pool, "ResourceType": "Pool"}
    if "tenant" in known:
        row |= {"SubAccountId": line.tenant, "SubAccountName": line.tenant, "SubAccountType": "Tenant"}
    return row


def _covered(line: Allocation, price: PriceOfGpu, cents: int, status: str) -> Row:
    """Usage that a commitment has paid for."""
    return {
        **_priced(cents, price.reserved, price.on_demand),
        **_committed(line.region, line.gpu, cents, price.reserved),
        "CommitmentDiscountStatus": status,
        "BilledCost": _amount(0),
        "EffectiveCost": _amount(cents),
        "PricingCategory": "Committed",
    }


def _committed(region: str, gpu: str, cents: int, price: float) -> Row:
    name = f"{region}/{gpu}/reserved"
    return {
        "CommitmentDiscountCategory": "Usage",
        "CommitmentDiscountId": name,
        "CommitmentDiscountName": name,
        "CommitmentDiscountQuantity": _plain(_hours(cents, price)),
        "CommitmentDiscountType": "Reservation",
        "CommitmentDiscountUnit": _UNIT,
    }


def _priced(cents: int, paid: float, listed: float) -> Row:
    """Quantity, and what it costs at the price without commitments."""
    hours, price = _hours(cents, paid), Decimal(repr(listed))
    cost = _amount(cents) if paid == listed else _plain(hours * price)
    return {
        "PricingQuantity": _plain(hours),
        "ContractedUnitPrice": _plain(price),
        "ListUnitPrice": _plain(price),
        "ContractedCost": cost,
        "ListCost": cost,
    }


def _consumed(cents: int, price: float) -> Row:
    return {"ConsumedQuantity": _plain(_hours(cents, price)), "ConsumedUnit": _UNIT}


def _hours(cents: int, price: float) -> Decimal:
    """GPU-hours that these cents pay for."""
    return round(Decimal(cents) / 100 / Decimal(repr(price)), _DIGITS) if price else Decimal(0)


def _amount(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _plain(value: Decimal) -> str:
    """Without an exponent, and without zeros at the end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
