# SPDX-License-Identifier: Apache-2.0
"""`warmbox bench`: the report is well-formed, its counts are right and its figures agree with each other. Nothing is judged by its speed."""

import csv
import html.parser
import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import harness

COUNT = 24
VOID = {"meta", "br", "line", "path"}


class Page(html.parser.HTMLParser):
    """Checks that elements nest, and collects what a page could fetch or run."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.foreign = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href") and not value.startswith("#"):
                self.foreign.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag == "path":
            return
        assert self.open and self.open[-1] in (tag, "tr", "td", "th", "li", "p"), (tag, self.open[-5:])
        while self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.text.append(data)


def bench(*args, directory, status=0):
    """(document, rows of the CSV, page, standard output)"""
    files = {kind: pathlib.Path(directory) / f"report.{kind}" for kind in ("json", "csv", "html")}
    command = [str(harness.WARMBOX), "bench", *args]
    for kind, path in files.items():
        command += [f"--{kind}", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=harness.environment())
    if result.returncode != status:
        raise AssertionError(f"{command}: {result.returncode}\n{result.stdout}\n{result.stderr}")
    with open(files["csv"], newline="") as f:
        rows = list(csv.DictReader(f))
    return json.loads(files["json"].read_text()), rows, files["html"].read_text(), result.stdout


class Bench(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.before = set(pathlib.Path("/tmp").glob("warmbox-*"))
        with tempfile.TemporaryDirectory() as directory:
            cls.document, cls.rows, cls.html, cls.table = bench(
                "claim", "burst", "refill", "density", "--quick", "--count", str(COUNT), directory=directory
            )
        cls.results = {result["bench"]: result for result in cls.document["results"]}

    def series(self, name, bench="claim"):
        found = [s for s in self.results[bench]["series"] if s["name"].startswith(name)]
        self.assertTrue(found, name)
        return found[0]

    def test_everything_was_measured(self):
        self.assertEqual(list(self.results), ["claim", "burst", "refill", "density"])
        for result in self.document["results"]:
            self.assertEqual(result["status"], "measured", result)
            self.assertEqual(result["template"], "tiny guest")
            self.assertGreater(result["seconds"], 0)

    def test_every_claim_is_counted(self):
        for name in ("closed loop", "open loop, from the scheduled time", "open loop, from the call"):
            series = self.series(name)
            self.assertEqual(series["n"] + series["failed"], COUNT, series["name"])
        # One echo after each claim, hit or miss.
        self.assertEqual(self.series("echo server")["n"], COUNT)
        burst = self.series("32 at once", "burst")
        self.assertEqual(burst["n"] + burst["failed"], 32 * COUNT)
        density = self.results["density"]["series"][0]
        self.assertEqual(density["n"] + density["failed"], COUNT)

    def test_histograms_hold_what_the_percentiles_say(self):
        for result in self.document["results"]:
            for series in result.get("series", []):
                pairs = series["histogram"]
                self.assertEqual(sum(count for _, count in pairs), series["n"], series["name"])
                self.assertEqual([v for v, _ in pairs], sorted({v for v, _ in pairs}))
                if series["n"] == 0:
                    continue
                order = [series[key] for key in ("min", "p50", "p90", "p99", "p999", "max")]
                self.assertEqual(order, sorted(order), series["name"])
                self.assertEqual(pairs[-1][0], series["max"])
                for key, share in (("p50", 0.5), ("p99", 0.99)):
                    below = sum(count for value, count in pairs if value <= series[key])
                    self.assertGreaterEqual(below, share * series["n"] - 1e-9, (series["name"], key))
                self.assertLessEqual(series["min"], series["mean"])
                self.assertLessEqual(series["mean"], series["max"])

    def test_figures_are_plausible(self):
        # From the scheduled time cannot be less than from the call.
        scheduled, called = (self.series(f"open loop, from the {what}") for what in ("scheduled time", "call"))
        self.assertGreaterEqual(scheduled["mean"], called["mean"])
        # No system call pair in less than a microsecond, nothing longer than the run.
        for result in self.document["results"]:
            for series in result.get("series", []):
                if series["n"]:
                    self.assertGreater(series["min"], 1000, series["name"])
                    self.assertLess(series["max"], result["seconds"] * 1e9, series["name"])
        values = {v["name"]: v["value"] for v in self.results["density"]["values"]}
        self.assertEqual(values["parked at once"], COUNT)
        self.assertGreaterEqual(values["VMM processes"], COUNT)
        self.assertGreater(values["for each sandbox: VMM, private pages"], 4096)
        self.assertEqual(values["restores that failed"], 0)
        bars = self.results["refill"].get("phases", [])
        self.assertTrue(all(part["value"] > 0 for bar in bars for part in bar["parts"]))

    def test_the_csv_has_every_figure(self):
        for result in self.document["results"]:
            for kind, key in (("series", "series"), ("value", "values"), ("target", "targets")):
                rows = [r for r in self.rows if r["bench"] == result["bench"] and r["kind"] == kind]
                self.assertEqual([r["name"] for r in rows], [item["name"] for item in result.get(key, [])])
                for row, item in zip(rows, result.get(key, [])):
                    if kind == "series":
                        self.assertEqual(int(row["p50"]), item["p50"])
                        self.assertEqual(row["stop_line"], item.get("stop_line", ""))
                    if kind == "target":
                        self.assertIn(row["verdict"], ("met", "not met", "no figure"))

    def test_the_page_is_whole_and_alone(self):
        page = Page()
        page.feed(self.html)
        page.close()
        self.assertEqual(page.foreign, [])
        self.assertNotIn("script", page.tags)
        self.assertNotIn("url(", self.html)
        self.assertGreaterEqual(page.tags.count("svg"), 3)
        text = " ".join(page.text)
        for result in self.document["results"]:
            for item in result.get("series", []) + result.get("targets", []) + result.get("values", []):
                self.assertIn(item["name"], text)
        self.assertIn(self.document["host"]["kernel"], text)
        self.assertIn(self.document["command"], text)
        self.assertIn("--quick", " ".join(self.document["warnings"]))

    def test_the_table_names_all_series(self):
        for result in self.document["results"]:
            for series in result.get("series", []):
                self.assertIn(series["name"], self.table)

    def test_nothing_is_left_behind(self):
        left = [p for p in set(pathlib.Path("/tmp").glob("warmbox-*")) - self.before if p.name.startswith(("warmbox-bench-", "warmbox-echo-"))]
        self.assertEqual(left, [])
        self.assertEqual([p for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory") for p in pathlib.Path(root).glob("warmbox-bench-*")], [])


class Cold(unittest.TestCase):
    """Its guest compares every page that it visits: a run that is counted saw the right memory."""

    def check(self, result, runs):
        self.assertEqual(result["status"], "measured", result)
        self.assertEqual(len(result["series"]), 3 * 5)
        for series in result["series"]:
            self.assertEqual((series["n"], series["failed"]), (runs, 0), series["name"])
        values = {v["name"]: v["value"] for v in result["values"]}
        for limit in ("", ", 16 MiB/s in the background"):
            with_it, without = f"cold, with the working set{limit}: ", f"cold, without it{limit}: "
            self.assertEqual(values[without + "of it from the working set"], 0)
            self.assertGreater(values[with_it + "of it from the working set"], 0)
            self.assertLessEqual(values[with_it + "of it from the working set"], values["working set"])
        # What a slow background has not brought is asked for, unless it is in the working set. (A
        # background without a limit may have brought all of it before anybody asks.)
        self.assertGreater(values[without + "chunks on demand"], values[with_it + "chunks on demand"])
        self.assertEqual(len(result["targets"]), 2)
        return values

    def test_tiny(self):
        before = set(pathlib.Path("/var/tmp").glob("warmbox-bench-*"))
        with tempfile.TemporaryDirectory() as directory:
            document, _, _, _ = bench("cold", "--quick", "--count", "3", directory=directory)
        (result,) = document["results"]
        self.assertEqual(result["template"], "tiny guest")
        values = self.check(result, 3)
        # All it visits, and a few pages of its own.
        visits = values["pages that the first exec visits"]
        self.assertGreaterEqual(values["working set"], 4096 * visits)
        self.assertLess(values["working set"], 4096 * 2 * visits)
        # With nothing lacking it asks for next to nothing.
        self.assertLess(values["cold, with the working set, 16 MiB/s in the background: chunks on demand"], visits / 10)
        self.assertLessEqual(set(pathlib.Path("/var/tmp").glob("warmbox-bench-*")), before)

    def test_linux(self):
        with tempfile.TemporaryDirectory() as directory:
            store = str(harness.store_with("tiny"))
            document, _, _, _ = bench("cold@tiny", "--quick", "--count", "1", "--store", store, directory=directory)
        (result,) = document["results"]
        self.assertEqual(result["template"], "tiny")
        self.check(result, 1)

    def test_a_file_that_stays_cached_is_a_failure(self):
        # What lies in memory cannot be put out of it.
        with tempfile.TemporaryDirectory(dir="/dev/shm") as store, tempfile.TemporaryDirectory() as directory:
            shutil.copytree(harness.store_with("tiny"), store, symlinks=True, dirs_exist_ok=True)
            document, _, _, _ = bench("cold@tiny", "--quick", "--count", "1", "--store", store, directory=directory)
        (result,) = document["results"]
        for series in result["series"]:
            self.assertEqual((series["n"], series["failed"]), (1, 0) if series["name"].endswith(": warm") else (0, 1), series["name"])
        self.assertEqual([target["value"] for target in result["targets"]], [None, None])

    def test_a_template_that_is_missing(self):
        with tempfile.TemporaryDirectory() as directory:
            document, _, _, _ = bench("cold@nothing", "--store", directory, directory=directory, status=1)
        self.assertEqual(document["results"][0]["status"], "failed")


class Failure(unittest.TestCase):
    def test_a_failure_is_in_the_report(self):
        with tempfile.TemporaryDirectory() as directory:
            document, rows, page, _ = bench(
                "claim", "--quick", "--socket", f"{directory}/none", "--template", "x<y", directory=directory, status=1
            )
        (result,) = document["results"]
        self.assertEqual(result["status"], "failed")
        self.assertIn("no warmboxd answers", result["reason"])
        self.assertEqual([(r["kind"], r["name"]) for r in rows], [("status", "failed")])
        self.assertIn("no warmboxd answers", page)
        self.assertIn("x&lt;y", page)
        self.assertNotIn("x<y", page)

    def test_a_template_that_is_missing(self):
        with tempfile.TemporaryDirectory() as directory:
            document, _, _, _ = bench("exec@nothing", "--store", directory, directory=directory, status=1)
        self.assertEqual(document["results"][0]["status"], "failed")

    def test_usage(self):
        for args in (["nonsense"], ["exec"], ["restore@x"], ["--count", "0"], ["--socket", "/x"], ["--load", "many"]):
            result = subprocess.run([str(harness.WARMBOX), "bench", *args], capture_output=True, text=True)
            self.assertEqual(result.returncode, 2, args)
            self.assertIn("--help", result.stderr)


if __name__ == "__main__":
    harness.tap_main()
