"""What a monitor wants to know, in Prometheus' text format, computed when it asks. Runs on the server's threads; reads
the catalog. The only label that grows is the streamer, and only while it is recorded.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, exposition
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from biliupd.catalog import queries
from biliupd.catalog.changes import reading
from biliupd.catalog.paths import readable
from biliupd.control import rows
from biliupd.control.context import Context

MEDIA_TYPE = exposition.CONTENT_TYPE_PLAIN_0_0_4
_OF_A_RECORDING = {
    "bitrate_bits_per_second": ("Media that came in the last half minute", "bitrate"),
    "speed_ratio": ("Seconds of media that came in a second", "speed"),
    "media_seconds": ("Recorded of the broadcast that is on air", "media_seconds"),
    "lost_seconds": ("Missing of the broadcast that is on air", "lost_seconds"),
    "bytes": ("Recorded of the broadcast that is on air", "bytes"),
    "gaps": ("Places of the broadcast that is on air where something is missing", "gaps"),
    "reconnects": ("Connections of the broadcast that is on air, but for its first", "reconnects"),
}


def text(here: Context) -> bytes:
    """All of it."""
    registry = CollectorRegistry()
    registry.register(_Everything(here))
    ProcessCollector(namespace="biliupd", registry=registry)
    return exposition.generate_latest(registry)


class _Everything(Collector):
    def __init__(self, here: Context) -> None:
        self._here = here

    def collect(self) -> Iterator[Metric]:
        db, house = self._here.catalog.db, self._here.house
        with reading(db):
            told = rows.status(db, house)
            uploads, rate = queries.uploading(db)
        running, watcher = house.running(), house.watcher()
        yield InfoMetricFamily("biliupd_build", "The version that runs", value={"version": told.version})
        yield GaugeMetricFamily("biliupd_ok", "1: everything works", int(told.ok))
        yield _by("biliupd_streamers", "Streamers by live status", "status", told.streamers)
        yield GaugeMetricFamily("biliupd_recordings", "Recorders that run", len(running))
        yield GaugeMetricFamily("biliupd_waiting", "Streamers that are live and wait for a place", len(told.waiting))
        for name, (what, figure) in _OF_A_RECORDING.items():
            yield _by(f"biliupd_recording_{name}", what, "streamer",
                      {readable(one.streamer): getattr(one.figures, figure) for one in running})  # fmt: skip
        yield _by("biliupd_videos", "Videos by state", "state", told.videos)
        yield _by("biliupd_submissions", "Submissions by state", "state", told.submissions)
        yield GaugeMetricFamily("biliupd_held", "Videos and submissions that wait for a person", told.held)
        yield GaugeMetricFamily("biliupd_uploads", "Uploads that run", uploads)
        yield GaugeMetricFamily("biliupd_upload_bytes_per_second", "Of all uploads that run", rate)
        if told.disk:
            yield GaugeMetricFamily("biliupd_disk_free_bytes", "Where recordings go", told.disk.free)
            yield GaugeMetricFamily("biliupd_disk_total_bytes", "Where recordings go", told.disk.total)
            if told.disk.seconds_left is not None:
                yield GaugeMetricFamily("biliupd_disk_left_seconds", "Until recordings fill it", told.disk.seconds_left)
        wrong = sum(not notice.info for notice in told.notices)
        yield GaugeMetricFamily("biliupd_notices", "What the operator should see to", wrong)
        yield GaugeMetricFamily("biliupd_watcher_watching", "1: files are taken", int(watcher.watching))
        yield GaugeMetricFamily("biliupd_watcher_queued", "Events that wait", watcher.queued)
        yield GaugeMetricFamily("biliupd_watcher_settling", "Files that still change", watcher.settling)


def _by(name: str, what: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
