"""What a cohort of the IDC costs on rented machines: measured seconds and requests, times published prices.

    python -m benchmarks.cloud_cost [--seconds 0.65] [--index-seconds 0.4]

SECONDS are those of a patient on one virtual core, DICOM to radiomics (``python -m benchmarks.stages lung1_002``), and
INDEX_SECONDS those of reading a series' headers in a bucket. Prices are list prices on demand in us-east-1, as known in
2025; look them up anew. Not in it: the minutes in which machines start, and storage.
"""

from __future__ import annotations

import argparse

from prognosis_dask.cohort.idc import PREFIX, select_series
from prognosis_dask.config.job import IdcSection

#: EC2 m5.large, two virtual cores with 8 GB, dollars per hour.
CORE_HOUR = 0.096 / 2
#: S3 Standard, dollars per request. Reading the IDC's buckets is free, and so is traffic within the region.
PUT, GET = 0.005 / 1000, 0.0004 / 1000
#: Requests of a case to the own bucket: listing and crop written; listing, crop and table of rows read.
PUTS, GETS = 8, 12
#: The study's own masks, and all that TotalSegmentator and others made.
COHORTS = {"nsclc_radiomics": IdcSection(analysis_results=("original",)), "nlst": IdcSection()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.65)
    parser.add_argument("--index-seconds", type=float, default=0.4)
    options = parser.parse_args()
    print("| collection | cases | series indexed | core hours | machines, $ | requests, $ | with 100 cores |")
    print("|---|---|---|---|---|---|---|")
    for name, wanted in COHORTS.items():
        series = select_series([PREFIX + name], [], wanted, ["CT"]).series
        cases = sum(one.modality == "SEG" for one in series)
        hours = (cases * options.seconds + len(series) * options.index_seconds) / 3600
        requests = cases * (PUTS * PUT + GETS * GET)
        print(
            f"| {name} | {cases:,} | {len(series):,} | {hours:.1f} | {hours * CORE_HOUR:.2f} | {requests:.2f} | "
            f"{60 * hours / 100:.0f} min |"
        )


if __name__ == "__main__":
    main()
