/* SPDX-License-Identifier: Apache-2.0 */

/* Accounts of sandboxes that are parked and leased: who is measured, and who is told. */

#include "tests/unit/pool/fixture.h"

#include "pool/account.h"

#include <stdio.h>
#include <string.h>

/* Touched by the program in place of a VMM: read all, written some. */
#define DIRTY_PAGES 3
#define SCRIPT	    "dirty=3\n"

struct asked {
	struct pool_account request;
	unsigned calls;
	enum pool_status status;
	char text[BASE_ERROR_TEXT_MAX];
	const struct pool_account_report *seen; /* only to compare */
	size_t n_templates, n_sandboxes;
	struct pool_account_template template; /* the first */
	struct pool_account_sandbox sandbox;   /* the last */
	struct asked *again;		       /* ask for this one, too, from inside */
};

static void on_account(struct pool_account *request, enum pool_status status,
		       const struct pool_account_report *report, const char *text)
{
	struct asked *asked = request->userdata;

	asked->calls++;
	asked->status = status;
	snprintf(asked->text, sizeof(asked->text), "%s", text ?: "");
	if (status == POOL_OK) {
		asked->seen = report;
		asked->n_templates = report->n_templates;
		asked->n_sandboxes = report->n_sandboxes;
		assert_true(report->host.total > 0);
		assert_true(report->elapsed_ns > 0);
		if (report->n_templates > 0) {
			asked->template = report->templates[0];
		}
		if (report->n_sandboxes > 0) {
			asked->sandbox = report->sandboxes[report->n_sandboxes - 1];
		}
	}
	if (asked->again) {
		pool_account(request->pool, &asked->again->request, NULL, NULL);
	}
}

static void ask(struct fixture *fixture, struct asked *asked, const char *template_name,
		const char *lease)
{
	*asked = (struct asked){ .request = { .userdata = asked, .fn = on_account } };
	pool_account(fixture->pool, &asked->request, template_name, lease);
	assert_int_equal(asked->calls, 0);
}

static void ask_and_wait(struct fixture *fixture, struct asked *asked, const char *template_name,
			 const char *lease)
{
	ask(fixture, asked, template_name, lease);
	fixture_until(fixture, asked->calls > 0);
	assert_int_equal(asked->calls, 1);
}

static void parked(struct fixture *fixture, const char *name, unsigned n)
{
	fixture_template(fixture, name, SCRIPT);
	assert_int_equal(fixture_set(fixture, name, n, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, name).parked == n);
}

static void shows_what_is_shared_and_what_is_not(void **state)
{
	struct fixture *fixture = *state;
	const struct pool_memory *memory;
	struct acquired acquired;
	struct asked asked;

	fixture_pool(fixture, 0, 2, 5000);
	parked(fixture, "t", 3);
	parked(fixture, "u", 1);
	ask_and_wait(fixture, &asked, "t", NULL);
	assert_int_equal(asked.status, POOL_OK);
	assert_int_equal(asked.n_templates, 1);
	assert_int_equal(asked.n_sandboxes, 3);
	assert_int_equal(asked.template.parked, 3);
	assert_int_equal(asked.template.measured, 3);
	assert_int_equal(asked.template.image_bytes, FIXTURE_MEMORY_BYTES);
	/* All that is not zero, and once only. */
	assert_in_range(asked.template.image_resident, 1, FIXTURE_MEMORY_BYTES);
	assert_int_equal(asked.template.sum.guest_private, 3 * DIRTY_PAGES * 4096);
	memory = &asked.sandbox.memory;
	assert_int_equal(memory->guest_private, DIRTY_PAGES * 4096);
	assert_true(memory->image_shared > 0 && memory->image_shared < FIXTURE_MEMORY_BYTES);
	assert_true(memory->page_tables > 0 && memory->kernel_stacks >= KIB(16));
	assert_true(asked.template.sum.pss >= memory->pss);

	/* A lease is measured alone. */
	assert_int_equal(fixture_set(fixture, "t", 0, NULL, 0), POOL_OK);
	assert_int_equal(fixture_set(fixture, "t", 1, NULL, 0), POOL_OK);
	fixture_acquire(fixture, &acquired, "t", 5000);
	fixture_until(fixture, acquired.calls > 0);
	assert_int_equal(acquired.status, POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	ask_and_wait(fixture, &asked, NULL, acquired.id);
	assert_int_equal(asked.status, POOL_OK);
	assert_int_equal(asked.n_sandboxes, 1);
	assert_int_equal(asked.sandbox.pid, acquired.pid);
	assert_int_equal(asked.template.leased, 1);
	assert_int_equal(asked.template.parked, 0);

	ask_and_wait(fixture, &asked, NULL, NULL);
	assert_int_equal(asked.n_templates, 2);
	assert_int_equal(asked.n_sandboxes, 3);
	pool_release(fixture->pool, acquired.id, POOL_CAUSE_RELEASED);
	ask_and_wait(fixture, &asked, NULL, acquired.id);
	assert_int_equal(asked.status, POOL_NOT_FOUND);
	ask_and_wait(fixture, &asked, "other", NULL);
	assert_int_equal(asked.status, POOL_NOT_FOUND);
}

static void requests_for_the_same_share_one_measurement(void **state)
{
	struct fixture *fixture = *state;
	struct asked a, b, c, d = { .request = { .userdata = &d, .fn = on_account } };

	fixture_pool(fixture, 0, 2, 5000);
	parked(fixture, "t", 2);
	ask(fixture, &a, NULL, NULL);
	ask(fixture, &b, "t", NULL);
	ask(fixture, &c, NULL, NULL);
	a.again = &d;
	fixture_until(fixture, a.calls && b.calls && c.calls && d.calls);
	assert_int_equal(a.status, POOL_OK);
	assert_int_equal(b.status, POOL_OK);
	assert_ptr_equal(a.seen, c.seen);
	assert_int_equal(a.calls + b.calls + c.calls + d.calls, 4);

	/* Nobody is told who does not wait any more, and nobody else suffers. */
	ask(fixture, &a, NULL, NULL);
	ask(fixture, &b, NULL, NULL);
	ask(fixture, &c, "t", NULL);
	pool_account_cancel(&a.request);
	pool_account_cancel(&c.request);
	fixture_until(fixture, b.calls > 0);
	fixture_run_ms(fixture, 20);
	assert_int_equal(a.calls + c.calls, 0);
	pool_account_cancel(&b.request);
}

static void measures_some_of_very_many(void **state)
{
	struct fixture *fixture = *state;
	struct asked asked;

	fixture_pool(fixture, 0, 8, 15000);
	parked(fixture, "t", POOL_ACCOUNT_MEASURED_MAX + 8);
	ask_and_wait(fixture, &asked, NULL, NULL);
	assert_int_equal(asked.template.parked, POOL_ACCOUNT_MEASURED_MAX + 8);
	assert_int_equal(asked.template.measured, POOL_ACCOUNT_MEASURED_MAX);
	assert_int_equal(asked.n_sandboxes, POOL_ACCOUNT_MEASURED_MAX);
}

static void a_pool_that_stops_tells_everybody(void **state)
{
	struct fixture *fixture = *state;
	struct asked running, waiting, late;

	fixture_pool(fixture, 0, 2, 5000);
	parked(fixture, "t", 1);
	ask(fixture, &running, NULL, NULL);
	fixture_turn(fixture);
	ask(fixture, &waiting, "t", NULL);
	pool_stop(fixture->pool, fixture_on_stopped, fixture);
	ask(fixture, &late, NULL, NULL);
	fixture_until(fixture, fixture->stopped);
	assert_int_equal(running.calls + waiting.calls + late.calls, 3);
	assert_int_equal(waiting.status, POOL_UNAVAILABLE);
	pool_free(fixture->pool);
	fixture->pool = NULL;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(shows_what_is_shared_and_what_is_not),
		TEST(requests_for_the_same_share_one_measurement),
		TEST(measures_some_of_very_many),
		TEST(a_pool_that_stops_tells_everybody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
