/* SPDX-License-Identifier: Apache-2.0 */

/* The event loop: dispatch, changes from within callbacks, removal from another thread, the end. */

#include "vmm/loop.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define SOURCES 8

struct fixture {
	struct vmm_loop loop;
	struct vmm_source *sources[SOURCES]; /* on the heap, so that a late event is a fault */
	int fds[SOURCES];
	unsigned calls;
	unsigned rounds;
};

static void stop(struct vmm_source *source, uint32_t events)
{
	struct fixture *f = source->userdata;

	f->calls++;
	f->loop.stop = true;
}

static void add(struct fixture *f, unsigned i, void (*fn)(struct vmm_source *, uint32_t), bool set)
{
	f->fds[i] = eventfd(set, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_true(f->fds[i] >= 0);
	f->sources[i] = malloc(sizeof(*f->sources[i]));
	*f->sources[i] = (struct vmm_source){ .fd = f->fds[i], .fn = fn, .userdata = f };
	assert_int_equal(vmm_loop_add(&f->loop, f->sources[i], EPOLLIN), 0);
}

static void drop(struct fixture *f, unsigned i)
{
	if (f->sources[i]) {
		vmm_loop_remove(&f->loop, f->sources[i]);
		free(f->sources[i]);
		f->sources[i] = NULL;
		close(f->fds[i]);
	}
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(vmm_loop_init(&f->loop), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < SOURCES; i++) {
		drop(f, i);
	}
	vmm_loop_deinit(&f->loop);
	free(f);
	return 0;
}

static void dispatches_until_stopped(void **state)
{
	struct fixture *f = *state;

	add(f, 0, stop, false);
	add(f, 1, stop, true);
	assert_int_equal(vmm_loop_run(&f->loop), 0);
	assert_int_equal(f->calls, 1);
	/* The lock is free again. */
	assert_int_equal(pthread_mutex_trylock(&f->loop.lock), 0);
	pthread_mutex_unlock(&f->loop.lock);
}

/* The first to be served removes and frees all the others, which are ready as well. */
static void remove_others(struct vmm_source *source, uint32_t events)
{
	struct fixture *f = source->userdata;
	unsigned left = 0;

	assert_int_equal(pthread_mutex_trylock(&f->loop.lock), EBUSY);
	f->calls++;
	for (unsigned i = 0; i < SOURCES; i++) {
		if (f->sources[i] != source) {
			drop(f, i);
		} else {
			left++;
		}
	}
	assert_int_equal(left, 1);
	f->loop.stop = f->calls == 3;
}

static void never_delivers_to_the_removed(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < SOURCES; i++) {
		add(f, i, remove_others, true);
	}
	assert_int_equal(vmm_loop_run(&f->loop), 0);
	assert_int_equal(f->calls, 3); /* the survivor, three times */
}

/* Every call removes itself; nobody else's event is lost by that. */
static void remove_self(struct vmm_source *source, uint32_t events)
{
	struct fixture *f = source->userdata;

	f->calls++;
	for (unsigned i = 0; i < SOURCES; i++) {
		if (f->sources[i] == source) {
			drop(f, i);
			break;
		}
	}
	f->loop.stop = f->calls == SOURCES;
}

static void loses_nothing_by_removals(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < SOURCES; i++) {
		add(f, i, remove_self, true);
	}
	assert_int_equal(vmm_loop_run(&f->loop), 0);
	assert_int_equal(f->calls, SOURCES);
}

static void change_interest(struct vmm_source *source, uint32_t events)
{
	struct fixture *f = source->userdata;

	f->calls++;
	if (f->calls == 1) {
		assert_int_equal(events, EPOLLIN);
		assert_int_equal(vmm_loop_modify(&f->loop, source, EPOLLOUT), 0);
	} else {
		assert_int_equal(events, EPOLLOUT);
		f->loop.stop = true;
	}
}

static void changes_what_is_watched(void **state)
{
	struct fixture *f = *state;

	add(f, 0, change_interest, true);
	assert_int_equal(vmm_loop_run(&f->loop), 0);
	assert_int_equal(f->calls, 2);
}

/* Another thread removes, frees and adds sources while the loop runs. */
static void *churn(void *userdata)
{
	struct fixture *f = userdata;

	for (unsigned round = 0; round < 2000; round++) {
		pthread_mutex_lock(&f->loop.lock);
		unsigned i = 1 + round % (SOURCES - 1);

		drop(f, i);
		f->rounds++;
		pthread_mutex_unlock(&f->loop.lock);
		pthread_mutex_lock(&f->loop.lock);
		add(f, i, change_interest, true);
		f->sources[i]->fn = remove_self;
		pthread_mutex_unlock(&f->loop.lock);
	}
	pthread_mutex_lock(&f->loop.lock);
	add(f, 0, stop, true);
	pthread_mutex_unlock(&f->loop.lock);
	return NULL;
}

static void survives_another_thread(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	f->calls = SOURCES; /* remove_self() never stops */
	assert_int_equal(pthread_create(&thread, NULL, churn, f), 0);
	assert_int_equal(vmm_loop_run(&f->loop), 0);
	pthread_join(thread, NULL);
	assert_int_equal(f->rounds, 2000);
}

static void refuses_what_epoll_refuses(void **state)
{
	struct fixture *f = *state;
	struct vmm_source source = { .fd = -1, .fn = stop, .userdata = f };

	assert_int_equal(vmm_loop_add(&f->loop, &source, EPOLLIN), -EBADF);
	assert_false(source.added);
	vmm_loop_remove(&f->loop, &source); /* never added: allowed */
}

struct alarm {
	struct vmm_timer timer;
	struct fixture *f;
	unsigned calls;
	uint64_t again_ns; /* arm anew for so much later, until the third call */
};

static void ring(struct vmm_timer *timer)
{
	struct alarm *alarm = timer->userdata;

	assert_int_equal(timer->deadline_ns, 0);
	alarm->calls++;
	if (alarm->again_ns > 0 && alarm->calls < 3) {
		vmm_loop_arm(&alarm->f->loop, timer, base_clock_monotonic_ns() + alarm->again_ns);
	} else {
		alarm->f->loop.stop = true;
	}
}

static void rings_when_it_is_time(void **state)
{
	struct fixture *f = *state;
	struct alarm alarm = { .timer = { ring, &alarm }, .f = f, .again_ns = 3 * NSEC_PER_MSEC };
	struct alarm never = { .timer = { ring, &never }, .f = f };
	uint64_t start_ns = base_clock_monotonic_ns();

	vmm_loop_arm(&f->loop, &never.timer, start_ns + NSEC_PER_MSEC);
	vmm_loop_arm(&f->loop, &alarm.timer, start_ns + 2 * NSEC_PER_MSEC);
	vmm_loop_disarm(&f->loop, &never.timer);
	vmm_loop_disarm(&f->loop, &never.timer); /* not armed: allowed */
	assert_int_equal(vmm_loop_run(&f->loop), 0);
	assert_int_equal(alarm.calls, 3);
	assert_int_equal(never.calls, 0);
	assert_true(base_clock_monotonic_ns() - start_ns >= 8 * NSEC_PER_MSEC);
}

static void waits_for_the_first_timer(void **state)
{
	struct fixture *f = *state;
	struct alarm late = { .timer = { ring, &late }, .f = f };
	struct alarm early = { .timer = { ring, &early }, .f = f };

	assert_int_equal(vmm_loop_timeout_ms(&f->loop, 5), -1);
	vmm_loop_arm(&f->loop, &late.timer, UINT64_MAX);
	assert_int_equal(vmm_loop_timeout_ms(&f->loop, 0), INT_MAX);
	vmm_loop_arm(&f->loop, &early.timer, NSEC_PER_SEC);
	vmm_loop_arm(&f->loop, &early.timer, 2 * NSEC_PER_SEC); /* anew */
	assert_int_equal(vmm_loop_timeout_ms(&f->loop, 2 * NSEC_PER_SEC - 1), 1);
	assert_int_equal(vmm_loop_timeout_ms(&f->loop, NSEC_PER_SEC), 1000);
	assert_int_equal(vmm_loop_timeout_ms(&f->loop, 3 * NSEC_PER_SEC), 0);
	vmm_loop_expire(&f->loop, 2 * NSEC_PER_SEC - 1);
	assert_int_equal(early.calls, 0);
	vmm_loop_expire(&f->loop, 2 * NSEC_PER_SEC);
	vmm_loop_expire(&f->loop, 3 * NSEC_PER_SEC);
	assert_int_equal(early.calls, 1);
	assert_int_equal(late.calls, 0);
	vmm_loop_disarm(&f->loop, &late.timer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(dispatches_until_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(never_delivers_to_the_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(loses_nothing_by_removals, setup, teardown),
		cmocka_unit_test_setup_teardown(changes_what_is_watched, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_another_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_what_epoll_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(rings_when_it_is_time, setup, teardown),
		cmocka_unit_test_setup_teardown(waits_for_the_first_timer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
