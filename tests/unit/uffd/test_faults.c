/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One call of the pager fails, each in turn, while it fills an image for a VM. Whatever it is, the
 * pager ends, or refuses, or fails the image, or manages all the same; no VM sees a wrong page, and
 * a pager that goes on fills the next image.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "tests/unit/uffd/scene.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* So many runs without trouble in a row: the call that is to fail does not come any more. */
#define RUNS_AT_REST 10
#define RUNS_MAX     500

static int fill_with_vm(struct scene *scene, struct uffd_client *client, int memfd,
			struct fake_vm *vm)
{
	struct base_message request = { .op = PAGER_OP_VM, .arg = { 1, 1, vm->address } };
	struct base_error error = { 0 };
	int r = uffd_client_image(client, 1, scene->snapshot, memfd, 0, 0, &error);

	fake_vm_ask(vm, scene_order(scene, 0, 1));
	if (r == 0) {
		r = uffd_client_call(client, &request, &vm->uffd, 1, NULL, &error);
	}
	if (r == 0) {
		r = uffd_client_wait(client, 1, PAGER_EVENT_COMPLETE, NULL, &error);
	}
	if (r == 0) {
		scene_check(scene, vm, scene_order(scene, 0, 1));
	}
	/* A refusal says why, and nothing hangs. */
	assert_true(r == 0 || error.text[0] != '\0');
	assert_int_not_equal(r, -ETIMEDOUT);
	return r;
}

/* True when there was trouble. */
static bool run(struct scene *scene, const char *program)
{
	struct uffd_client *client = NULL;
	int memfd = scene_memfd(scene), next = -1;
	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);
	struct base_error error = { 0 };
	int r, r_next;

	assert_int_equal(uffd_client_start(program, &client, &error), 0);
	r = fill_with_vm(scene, client, memfd, &vm);
	r_next = r == -ECONNRESET
			 ? r
			 : uffd_client_fill(client, 2, scene->snapshot, &next, NULL, &error);
	if (r_next == 0) {
		assert_int_equal(fixture_compare(scene->source_fd, next, scene->bytes), 0);
	} else {
		/* The failing call may have come only now; an answer without memory ends it. */
		assert_true(r == -ECONNRESET || r == 0);
	}
	uffd_client_free(client);
	fake_vm_end(&vm);
	base_fd_close(next);
	close(memfd);
	return r < 0 || r_next < 0;
}

static void test_each_call_fails(void **state)
{
	struct scene *scene = *state;
	unsigned troubled = 0, at_rest = 0, n;
	char path[FIXTURE_PATH_MAX + 32];

	scene_publish_mixed(scene, KIB(400));
	for (n = 1; n < RUNS_MAX && at_rest < RUNS_AT_REST; n++) {
		snprintf(path, sizeof(path), "%s/pager-%u", scene->fixture->root, n);
		assert_int_equal(symlink(getenv("WARMBOX_PAGER"), path), 0);
		if (run(scene, path)) {
			troubled++;
			at_rest = 0;
		} else {
			at_rest++;
		}
	}
	assert_in_range(n, RUNS_AT_REST, RUNS_MAX - 1);
	assert_true(troubled > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_each_call_fails, scene_setup, scene_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
