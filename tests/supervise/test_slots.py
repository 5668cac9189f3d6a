"""What is worth a file: seconds of reading saved against bytes written and read."""

from __future__ import annotations

import pytest

from llamamgr.core.cards import ModelCard
from llamamgr.supervise.lease import Endpoint
from llamamgr.supervise.slots import SlotStore, net_seconds
from tests.supervise.conftest import model
from tests.supervise.engine_of_slots import EngineOfSlots

GIB = 1 << 30


def test_a_prompt_read_slowly_is_worth_a_small_file_and_one_read_fast_is_not_worth_a_large_one():
    on_a_processor = net_seconds(reading=60.0, size=200_000_000, pace=500e6)
    on_a_gpu = net_seconds(reading=2.0, size=1_300_000_000, pace=500e6)
    assert on_a_processor > 50
    assert on_a_gpu < 0


@pytest.fixture
def card() -> ModelCard:
    return model(kv_bytes_per_token=10_000)


async def saved(store: SlotStore, engine: EngineOfSlots, card: ModelCard) -> int:
    async with engine as endpoint:
        return await store.save(Endpoint(socket=endpoint), "key", "default/b1", card)


async def test_a_slow_disk_is_learnt_from_what_was_saved_and_its_files_are_no_longer_written(
    short_folder, card
):
    engine = EngineOfSlots(short_folder / "s.sock", tokens=2000, seconds_per_token=0.0005)
    store = SlotStore(short_folder / "slots", GIB, 0.5)
    engine.bytes_per_second = 4e6
    assert await saved(store, engine, card) == 2000
    for _ in range(4):
        await saved(store, engine, card)
    assert await saved(store, engine, card) == 0


async def test_a_restored_child_that_read_one_token_does_not_make_reading_look_slow(short_folder, card):
    engine = EngineOfSlots(short_folder / "s.sock", tokens=2000, seconds_per_token=0.00005)
    store = SlotStore(short_folder / "slots", GIB, 0.5)
    assert await saved(store, engine, card) == 0
    engine.seconds_per_token = 0.05
    assert await saved(store, engine, card) == 0


async def test_a_long_prompt_is_saved_and_comes_back(short_folder, card):
    engine = EngineOfSlots(short_folder / "s.sock", tokens=2000, seconds_per_token=0.01)
    store = SlotStore(short_folder / "slots", GIB, 0.5)
    folder = store.folder("key")
    assert await saved(store, engine, card) == 2000
    (folder / "0.bin").write_bytes(b"slot")
    async with engine as endpoint:
        assert await store.restore(Endpoint(socket=endpoint), "key") == 2000


async def test_a_child_of_short_prompts_is_asked_for_nothing_but_its_slots(short_folder, card):
    engine = EngineOfSlots(short_folder / "s.sock", tokens=63, seconds_per_token=10)
    assert await saved(SlotStore(short_folder / "slots", GIB, 0.5), engine, card) == 0
    assert engine.asked == ["/slots"]


async def test_nothing_more_is_saved_once_all_is_to_end(short_folder, card):
    engine = EngineOfSlots(short_folder / "s.sock", tokens=2000, seconds_per_token=0.01)
    store = SlotStore(short_folder / "slots", GIB, 0.5)
    async with engine as endpoint:
        saved = await store.save(
            Endpoint(socket=endpoint), "key", "default/b1", card, is_hurried=lambda: True
        )
    assert saved == 0
    assert not [path for path in engine.asked if "action=save" in path]


async def test_a_disk_that_cannot_hold_prompt_caches_keeps_no_model_from_loading(
    supervisor, fake_build, short_folder
):
    (short_folder / "state").mkdir()
    (short_folder / "state" / "slots").write_text("a file where the folder would be")
    async with supervisor(fake_build(), slot_cache=GIB) as owner, owner.acquire(model()):
        assert [child.state for child in owner.status()] == ["ready"]


def test_files_of_any_name_count_and_go(short_folder):
    store = SlotStore(short_folder, 10, 0.5)
    folder = store.folder("key")
    (folder / "named-by-a-client").write_bytes(bytes(11))
    store._shrink()
    assert list(folder.iterdir()) == []
