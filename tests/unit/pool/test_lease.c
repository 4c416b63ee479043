/* SPDX-License-Identifier: Apache-2.0 */

/* The table of leases by itself: its bound, its order, its memory of causes. */

#include "pool/lease.h"

#include "pool/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

static struct pool_lease_table table;
static struct pool_tenant_config config;
/* As if it had a section: nothing happens when nobody refers to it. */
static struct pool_tenant tenant = { .config = &config, .has_section = true };

static struct pool_lease_entry *add(unsigned number)
{
	struct pool_lease_entry *entry = calloc(1, sizeof(*entry));

	snprintf(entry->id, sizeof(entry->id), "%032x", number);
	entry->tenant = pool_tenant_ref(&tenant);
	pool_lease_table_add(&table, entry);
	return entry;
}

static struct pool_lease_entry *find(unsigned number)
{
	char id[POOL_LEASE_ID_LENGTH + 1];

	snprintf(id, sizeof(id), "%032x", number);
	return pool_lease_table_find(&table, id);
}

static void remembers_so_many_ended_ones(void **state)
{
	pool_lease_table_init(&table);
	/* An active one is never forgotten. */
	struct pool_lease_entry *active = add(UINT32_MAX);

	for (unsigned i = 0; i < POOL_ENDED_LEASES_MAX; i++) {
		pool_lease_table_end(&table, add(i), POOL_CAUSE_RELEASED);
	}
	assert_non_null(find(0));
	assert_int_equal(table.n_ended, POOL_ENDED_LEASES_MAX);
	pool_lease_table_end(&table, add(POOL_ENDED_LEASES_MAX), POOL_CAUSE_EXPIRED);
	assert_null(find(0));
	assert_non_null(find(1));
	assert_int_equal(find(POOL_ENDED_LEASES_MAX)->cause, POOL_CAUSE_EXPIRED);
	assert_int_equal(table.n_ended, POOL_ENDED_LEASES_MAX);
	assert_ptr_equal(find(UINT32_MAX), active);
	pool_lease_table_end(&table, active, POOL_CAUSE_SHUTDOWN);
	assert_ptr_equal(find(UINT32_MAX), active);
	pool_lease_table_deinit(&table);
}

static void unknown_ids_are_not_found(void **state)
{
	static const char *const ids[] = { "",
					   "0",
					   "-1",
					   "zz",
					   "\xff\xff\xff\xff\xff\xff\xff\xff\xff",
					   "000000000000000000000000000000070" };

	pool_lease_table_init(&table);
	pool_lease_table_end(&table, add(7), POOL_CAUSE_RELEASED);
	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
		assert_null(pool_lease_table_find(&table, ids[i]));
	}
	pool_lease_table_deinit(&table);
}

static void causes_have_the_names_of_the_protocol(void **state)
{
	static const char *const names[] = {
		[POOL_CAUSE_RELEASED] = "released",	    [POOL_CAUSE_EXPIRED] = "expired",
		[POOL_CAUSE_CLIENT_GONE] = "client_gone",   [POOL_CAUSE_VMM_DIED] = "vmm_died",
		[POOL_CAUSE_GUEST_EXITED] = "guest_exited", [POOL_CAUSE_SHUTDOWN] = "shutdown",
	};

	assert_null(pool_cause_name(POOL_CAUSE_NONE));
	for (unsigned i = 1; i < ARRAY_SIZE(names); i++) {
		assert_string_equal(pool_cause_name((enum pool_cause)i), names[i]);
	}
}

static void labels_are_copied_whole(void **state)
{
	struct pool_label labels[POOL_LABELS_MAX + 1], *copy;
	char text[POOL_LABEL_BYTES_MAX + 2];

	memset(text, 'k', sizeof(text));
	text[POOL_LABEL_BYTES_MAX] = '\0';
	for (unsigned i = 0; i < ARRAY_SIZE(labels); i++) {
		labels[i] = (struct pool_label){ text, "v" };
	}
	assert_int_equal(pool_labels_copy(labels, POOL_LABELS_MAX, &copy), 0);
	text[0] = 'x';
	assert_int_equal(copy[POOL_LABELS_MAX - 1].key[0], 'k');
	assert_int_equal(strlen(copy[0].key), POOL_LABEL_BYTES_MAX);
	assert_string_equal(copy[POOL_LABELS_MAX - 1].value, "v");
	free(copy);
	assert_int_equal(pool_labels_copy(labels, POOL_LABELS_MAX + 1, &copy), -E2BIG);
	text[POOL_LABEL_BYTES_MAX] = 'k';
	text[POOL_LABEL_BYTES_MAX + 1] = '\0';
	assert_int_equal(pool_labels_copy(labels, 1, &copy), -E2BIG);
	labels[0] = (struct pool_label){ "k", text };
	assert_int_equal(pool_labels_copy(labels, 1, &copy), -E2BIG);
	assert_int_equal(pool_labels_copy(NULL, 0, &copy), 0);
	assert_null(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(remembers_so_many_ended_ones),
		cmocka_unit_test(unknown_ids_are_not_found),
		cmocka_unit_test(causes_have_the_names_of_the_protocol),
		cmocka_unit_test(labels_are_copied_whole),
	};

	return cmocka_run_group_tests_name("pool-lease", tests, NULL, NULL);
}
