"""Seats for requests that wait."""

import contextlib
import threading

from api.seats import Seats


def test_so_many_find_a_seat_and_the_next_does_not():
    seats = Seats(3)
    with contextlib.ExitStack() as taken:
        assert [taken.enter_context(seats.taken()) for _ in range(5)] == [True, True, True, False, False]


def test_seat_is_free_again_after_the_block_also_after_an_error():
    seats = Seats(1)
    for _ in range(3):
        with contextlib.suppress(KeyError), seats.taken() as seated:
            assert seated
            raise KeyError


def test_who_found_no_seat_frees_none():
    seats = Seats(1)
    with seats.taken():
        for _ in range(3):
            with seats.taken() as seated:
                assert not seated
    with seats.taken() as first, seats.taken() as second:
        assert (first, second) == (True, False)


def test_where_there_are_no_seats_nobody_waits():
    with Seats(0).taken() as seated:
        assert not seated


def test_threads_never_have_more_seats_than_there_are():
    seats, lock, all_came = Seats(4), threading.Lock(), threading.Barrier(16)
    sitting, most = [], []

    def sit():
        all_came.wait(10)
        for _ in range(200):
            with seats.taken() as seated:
                if not seated:
                    continue
                with lock:
                    sitting.append(1)
                    most.append(len(sitting))
                with lock:
                    sitting.pop()

    threads = [threading.Thread(target=sit) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= max(most) <= 4
