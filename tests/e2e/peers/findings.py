"""Where the peers were seen to fail, what must be true here, and the tests that show it; ``scripts/bench peers`` prints it.

The first ten are of llama-swap (commit 0bdb372), run with injected faults. The traps were met in earlier managers; only those that
concern processes are here.
"""

from __future__ import annotations

import msgspec

_STREAMS, _SCHEDULING = "e2e/peers/test_streams.py", "e2e/peers/test_scheduling.py"
_PROCESSES, _PRIVATE = "e2e/peers/test_processes.py", "daemon/test_private.py"
_PROMISES, _FAKE_ONLY_OLD = "e2e/test_promises.py", "no build that old is at hand"


class Finding(msgspec.Struct, frozen=True):
    """One row. ``peer`` is what a peer does; ``shown`` are files under tests/ with names of tests.

    ``fake_only`` says why no real engine shows it.
    """

    name: str
    peer: str
    here: str
    shown: tuple[tuple[str, str], ...]
    fake_only: str = ""


FINDINGS = (
    Finding(
        "1 a crash in mid-stream",
        "looks like success: 200 and a well-formed end",
        "an error in the client's dialect, then a cut connection",
        ((_STREAMS, "test_an_engine_that_dies_in_mid_stream_is_told_in_the_dialect_and_the_stream_is_cut"),),
    ),
    Finding(
        "2 a crash before the head",
        "502 with an empty body",
        "one silent retry, then a typed error with signal and request id",
        (
            (_STREAMS, "test_a_request_whose_engine_dies_once_is_answered_as_if_nothing_had_been"),
            (
                _STREAMS,
                "test_an_engine_that_dies_before_its_first_byte_is_asked_again_and_a_second_death_is_told",
            ),
        ),
    ),
    Finding(
        "3 a health check that hangs",
        "holds the request for ever",
        "a deadline for each probe and one for the load",
        ((_SCHEDULING, "test_a_health_check_that_hangs_holds_no_request_beyond_its_deadline"),),
    ),
    Finding(
        "4 a load that was abandoned",
        "is killed a second after it is ready",
        "stays for its keep_alive",
        ((_SCHEDULING, "test_a_load_whose_client_left_is_finished_and_stays_for_its_keep_alive"),),
    ),
    Finding(
        "5 a busy model",
        "starves those that wait for another, without bound",
        "after `patience` the one that waits has its turn, and no stream is cut for it",
        (
            (_SCHEDULING, "test_a_model_waited_for_gets_its_turn_while_another_is_never_idle"),
            (_SCHEDULING, "test_a_swap_never_interrupts_a_stream"),
        ),
    ),
    Finding(
        "6 a reload",
        "kills every engine and stream, for a comment too",
        "restarts what changed once its streams are over, nothing else",
        (
            (_PROCESSES, "test_a_reload_that_changes_nothing_restarts_nothing_and_cuts_no_stream"),
            (_PROCESSES, "test_a_reload_restarts_only_the_model_it_concerns_once_its_streams_are_over"),
        ),
    ),
    Finding(
        "7 an unload that takes its time",
        "freezes all models",
        "holds nobody up",
        ((_SCHEDULING, "test_an_unload_that_takes_its_time_holds_no_other_model_up"),),
    ),
    Finding(
        "8 kill -9 of the manager",
        "leaves engines alive, and their ports taken for ever",
        "no engine lives, the next start serves",
        ((_PROCESSES, "test_a_killed_daemon_leaves_no_engine_and_the_next_one_serves"),),
    ),
    Finding(
        "9 a stranger on an engine's address",
        "passes for the engine and is sent prompts",
        "is never taken for it, on a port or a socket",
        (
            (_PROCESSES, "test_a_stranger_on_the_port_of_an_engine_is_never_taken_for_it"),
            (_PROCESSES, "test_a_stranger_on_the_socket_of_an_engine_is_never_taken_for_it"),
        ),
    ),
    Finding(
        "10 a client's key",
        "is forwarded to engines",
        "goes no further, in no dialect",
        ((_STREAMS, "test_no_credential_of_a_client_reaches_an_engine"),),
    ),
    Finding(
        "a stubborn engine in a swap",
        "is waited for as long as a load may take (120 s)",
        "is ended after 4 s, 3 more where its prompt cache was asked for",
        ((_SCHEDULING, "test_a_swap_behind_an_engine_that_will_not_stop_is_bounded"),),
    ),
    Finding(
        "a load that fails",
        "200 with an error glued to the stream; started anew for each request",
        "an error status with code and log, then a breaker with Retry-After",
        ((_STREAMS, "test_a_load_that_fails_is_a_status_and_never_a_stream"),),
    ),
    Finding(
        "an engine that hangs when ready",
        "is never noticed",
        "is replaced within 15 s; who had seen nothing is answered, who had is told",
        (
            (_SCHEDULING, "test_an_engine_that_hangs_when_ready_is_noticed_while_a_request_waits_on_it"),
            (_SCHEDULING, "test_a_stream_on_an_engine_that_hangs_is_told_an_error"),
        ),
    ),
    Finding(
        "trap 1 kill(pid, 0) as a sign of life",
        "zombies look alive, recycled pids are killed",
        "exits are learnt by wait; a pid counts with its start time and program",
        (
            (_SCHEDULING, "test_an_engine_that_is_killed_when_idle_is_not_taken_for_alive"),
            (_PROCESSES, "test_an_orphan_is_ended_and_a_process_with_its_recycled_number_is_not"),
        ),
    ),
    Finding(
        "trap 2 closing before the start, twice, after a failed one",
        "hangs",
        "returns",
        (
            (_PRIVATE, "test_closing_is_safe_before_the_start_twice_and_after"),
            (_PRIVATE, "test_a_failed_start_tells_code_and_log_and_closing_after_it_returns_promptly"),
        ),
        fake_only="a start that fails on demand",
    ),
    Finding(
        "trap 4 other paths answer during the load",
        "taken for ready by /v1/models",
        "only /health tells",
        ((_SCHEDULING, "test_an_engine_that_answers_other_paths_while_it_loads_is_not_ready"),),
        fake_only=_FAKE_ONLY_OLD,
    ),
    Finding(
        "trap 5 pipes that nobody drains before readiness",
        "the engine blocks after 64 KiB",
        "drained from the first byte, bounded on disk",
        ((_PROCESSES, "test_output_before_readiness_never_blocks_an_engine"),),
    ),
    Finding(
        "trap 6 the parent-death signal",
        "fires when a worker thread ends; spares grandchildren",
        "engines start from the main thread; the next start ends what an engine had started",
        (
            (_PROCESSES, "test_an_engine_outlives_the_thread_that_asked_for_it"),
            (_PRIVATE, "test_a_server_started_by_a_thread_that_ends_lives_on"),
            (_PROCESSES, "test_what_an_engine_started_is_gone_too_once_the_next_daemon_starts"),
        ),
    ),
    Finding(
        "trap 16 restart and auto-start",
        "restart loses the configuration; status starts a daemon; two starts race",
        "same address; asking starts none; one daemon of two starts",
        (
            (_PROCESSES, "test_a_daemon_that_is_restarted_listens_where_it_did_before"),
            (_PROCESSES, "test_asking_for_a_daemon_starts_none"),
            (_PROMISES, "test_two_commands_at_once_spawn_one_daemon"),
        ),
        fake_only="the engine has no part in it",
    ),
    Finding(
        "trap 17 the control channel",
        "blocked by a generation",
        "answers while every slot generates",
        ((_STREAMS, "test_the_control_channel_answers_while_every_slot_generates"),),
    ),
    Finding(
        "trap 18 a client that leaves",
        "the generation goes on",
        "its slot is free within 1.5 s; what it waited for is not loaded",
        (
            (_STREAMS, "test_a_long_generation_that_is_left_frees_its_slot"),
            (_SCHEDULING, "test_queue_and_loads_are_dropped_with_their_client"),
        ),
    ),
    Finding(
        "trap 22 an engine's key",
        "stands in its command line",
        "is in its environment only",
        ((_STREAMS, "test_what_an_engine_is_told_to_keep_secret_is_in_no_argument"),),
    ),
)
