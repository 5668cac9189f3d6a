"""What llama-bench says, what may be compared with what, and the picture of it."""

import json
import xml.etree.ElementTree as ElementTree

import msgspec
import pytest

from llamamgr.core.bench_chart import draw
from llamamgr.core.bench_records import Record, behind, drops, former, is_drop, parse_line


def record(
    number: int, speed: float, test: str = "tg128", instance: str = "default", **more: object
) -> Record:
    samples = (speed * 0.99, speed, speed * 1.01)
    known: dict[str, object] = {"deviation": speed / 100, "samples": samples, "when": float(number)}
    return Record(instance, f"b{number}-x-cpu", number, "x", "m", test, speed, **(known | more))


def test_a_line_gives_the_median_and_survives_fields_that_come_and_go():
    line = {
        "n_prompt": 0,
        "n_gen": 128,
        "n_depth": 64,
        "avg_ts": 70,
        "stddev_ts": 4,
        "samples_ts": [5, 101, 99],
        "x": {},
    }
    assert parse_line(json.dumps(line))[:3] == ("tg128 @ d64", 99, 4)
    assert parse_line('{"n_prompt": 64, "avg_ts": 70.5}')[:3] == ("pp64", 70.5, 0)
    assert parse_line('{"n_prompt": 64, "n_gen": 8, "avg_ts": 1}')[0] == "pp64+tg8"


@pytest.mark.parametrize("text", ["", "llama-bench: benchmark 1/2", "{", "{}", '{"n_prompt": "x"}', "[1]"])
def test_what_is_no_measurement_is_none(text):
    assert parse_line(text) is None


def test_figures_under_other_settings_are_not_compared():
    one = parse_line('{"n_gen": 1, "avg_ts": 1, "n_threads": 2}')
    other = parse_line('{"n_gen": 1, "avg_ts": 1, "n_threads": 4}')
    assert one[4] != other[4]
    assert former([record(1, 100, settings="two")], [record(2, 50, settings="four")]) == ()


def test_the_past_is_the_last_figure_of_each_other_build_latest_first():
    old, again, second, now = record(1, 100), record(1, 110, when=9.0), record(2, 90), record(3, 80)
    foreign = record(2, 500, instance="other")
    assert former([again, old, second, foreign, record(3, 70)], [now]) == (second, again)


def test_a_drop_is_marked_when_it_is_more_than_a_tenth_and_more_than_chance():
    assert [drop.before.number for drop in drops([record(3, 85)], [record(1, 100), record(2, 90)])] == [1]
    assert drops([record(3, 85)], [record(1, 100)])[0].part == pytest.approx(0.15)
    assert drops([record(3, 91)], [record(1, 100)]) == ()


def test_of_two_builds_of_one_instance_side_by_side_the_slower_is_marked():
    older, newer = record(1, 100), record(2, 80)
    [drop] = drops([newer, older], [])
    assert (drop.now, drop.before, drop.part) == (newer, older, pytest.approx(0.2))
    assert drops([older, record(1, 50)], []) == ()  # a build is no other than itself


def test_of_instances_side_by_side_the_slower_is_marked_whatever_its_device():
    slow, fast = record(3, 1, instance="cpu", settings="n_gpu_layers=0"), record(3, 100, instance="gpu")
    [drop] = behind([slow, fast, record(3, 95, instance="close")])
    assert (drop.now, drop.before, drop.part) == (slow, fast, 0.99)
    assert behind([record(3, 1), record(2, 100), record(3, 100, test="pp512", instance="gpu")]) == ()
    shaky = record(1, 100, samples=(50.0, 60.0, 100.0, 140.0, 150.0))
    assert not is_drop(shaky, record(3, 85))


def test_one_run_that_hung_does_not_hide_a_drop():
    assert is_drop(
        record(1, 100), record(2, 80, deviation=40.0, samples=(5.0, 79.0, 80.0, 80.0, 80.0, 81.0, 81.0))
    )


def test_without_samples_the_deviation_stands_for_the_spread():
    assert is_drop(record(1, 100, samples=(), deviation=1.0), record(2, 80, samples=(), deviation=1.0))
    assert not is_drop(record(1, 100, samples=(), deviation=15.0), record(2, 80, samples=(), deviation=15.0))


def test_a_record_survives_being_written():
    assert msgspec.json.decode(msgspec.json.encode(record(1, 2)), type=Record) == record(1, 2)


def test_the_picture_is_xml_with_a_bar_as_long_as_its_speed_for_each_figure():
    hostile = record(2, 50, instance="<&>")
    root = ElementTree.fromstring(draw("a < b", [record(1, 100), hostile, record(1, 9000, "pp512")]))
    bars = [
        float(r.get("width"))
        for r in root.iter("{http://www.w3.org/2000/svg}rect")
        if r.get("class") != "page"
    ]
    assert len(bars) == 3 and bars[0] == pytest.approx(2 * bars[1], rel=0.01) and bars[2] >= bars[0]
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<&> b2" in texts and "9,000.0" in texts


def test_a_long_name_has_room_in_the_picture_and_builds_of_one_number_are_told_apart():
    name = "a-name-as-long-as-nobody-would-ever-think-of"
    twin = msgspec.structs.replace(record(2, 90), build="b2-x-cpu.2")
    root = ElementTree.fromstring(draw("m", [record(1, 100, instance=name), record(2, 80), twin]))
    texts = {text.text: text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {f"{name} b1", "default b2-x-cpu", "default b2-x-cpu.2"} <= set(texts)
    assert float(texts[f"{name} b1"].get("x")) > 7 * len(f"{name} b1")
    furthest = max(float(text.get("x")) for text in texts.values())
    assert float(root.get("width")) > furthest + 50


def test_a_picture_of_nothing_fast_is_still_a_picture():
    picture = ElementTree.fromstring(draw("none", [record(1, 0.0)]))
    assert picture.tag.endswith("svg")
    assert "nan" not in ElementTree.tostring(picture, "unicode")
