/* SPDX-License-Identifier: Apache-2.0 */

/*
 * warmbox-pager: fills the memory of every sandbox that is restored on this host.
 *
 * Happy path: check the host, make the ring, start the workers; then, round after round, start the
 * reads that are due, wait for completions, and hand each to whom it is about. Before the main
 * thread sleeps it does itself what is urgent and undone. The manager ends the pager by killing it.
 *
 * Failure: without io_uring, or where memfds are made of huge pages, it says so and exits with 1;
 * so it does when the ring or the socket breaks. The manager starts another, which begins anew.
 * Without a manager, whose socket has closed, it takes nothing new, fills every image that VMs use
 * as fast as it can, lets them go and ends: leased VMs outlive the manager, and nobody else can
 * bring their pages. An image that fails then leaves its VMs waiting; the manager's successor ends
 * them.
 *
 * Shut-down: the workers finish what they have in hand, the ring cancels what is under way, and the
 * kernel takes back the rest. VMs that wait go on waiting, since their own processes hold the
 * userfaultfd as well.
 */

#include "uffd/pager.h"

#include "base/log.h"
#include "uffd/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Every image has three descriptors and every VM one. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int init(struct uffd_pager *pager, struct base_error *error)
{
	int flags = fcntl(PAGER_CONTROL_FD, F_GETFL);
	int r;

	if (flags < 0 || fcntl(PAGER_CONTROL_FD, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(PAGER_CONTROL_FD, F_SETFD, FD_CLOEXEC) < 0) {
		r = -errno;
		return base_error_set_errno(error, r,
					    "descriptor %d is not a control socket: this program "
					    "is started by warmboxd",
					    PAGER_CONTROL_FD);
	}
	raise_limits();
	r = uffd_host_check(error);
	if (r < 0) {
		return r;
	}
	r = uffd_ring_init(&pager->ring, (uffd_workers_count() + 1) * UFFD_SCRATCH_BYTES, error);
	if (r < 0) {
		return r;
	}
	r = uffd_workers_start(&pager->workers, pager->ring.scratch);
	return r < 0 ? base_error_set_errno(error, r, "cannot start threads") : 0;
}

static void await_jobs(struct uffd_pager *pager)
{
	uffd_ring_read(&pager->ring, pager->workers.done_fd, &pager->jobs_count,
		       sizeof(pager->jobs_count), UFFD_TAG_JOBS, NULL);
}

static void handle_completions(struct uffd_pager *pager)
{
	enum uffd_tag tag;
	void *pointer;
	int result;

	while (uffd_ring_next(&pager->ring, &tag, &pointer, &result)) {
		switch (tag) {
		case UFFD_TAG_CONTROL:
			uffd_control_ready(pager);
			break;
		case UFFD_TAG_JOBS:
			await_jobs(pager);
			uffd_workers_reap(&pager->workers);
			break;
		case UFFD_TAG_READ:
			uffd_schedule_read_done(pointer, result);
			break;
		case UFFD_TAG_VM:
			uffd_vm_fault(pointer, result);
			break;
		case UFFD_TAG_IGNORE:
			break;
		}
	}
}

static uint64_t advance_images(struct uffd_pager *pager)
{
	uint64_t deadline_ns = UINT64_MAX;

	BASE_LIST_FOR_EACH(link, &pager->images)
	{
		struct uffd_image *image = CONTAINER_OF(link, struct uffd_image, link);

		deadline_ns = MIN(deadline_ns, uffd_image_advance(image));
	}
	return deadline_ns;
}

/* VMs may outlive the manager, so the pager stays until they miss nothing any more. */
static bool is_over(struct uffd_pager *pager)
{
	if (pager->control.orphaned) {
		uffd_images_orphaned(pager);
	}
	return pager->control.closed || (pager->control.orphaned && uffd_images_done(pager));
}

static int serve(struct uffd_pager *pager, struct base_error *error)
{
	await_jobs(pager);
	while (!is_over(pager)) {
		uint64_t advance_ns = advance_images(pager);
		uint64_t schedule_ns = uffd_schedule(pager);
		uint64_t deadline_ns = pager->again ? 0 : MIN(advance_ns, schedule_ns);

		pager->again = false;
		uffd_control_arm(pager);

		int r = uffd_ring_wait(&pager->ring, deadline_ns);

		if (r < 0) {
			return base_error_set_errno(error, r, "io_uring");
		}
		handle_completions(pager);
		pager->again |= uffd_workers_help(&pager->workers);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct uffd_pager pager;
	struct base_error error = { 0 };

	if (argc > 1) {
		fprintf(stderr, "usage: %s (it takes no arguments: warmboxd starts it)\n", argv[0]);
		return 2;
	}
	base_list_init(&pager.images);
	uffd_control_init(&pager.control, PAGER_CONTROL_FD);

	int r = init(&pager, &error);

	if (r == 0) {
		r = serve(&pager, &error);
	}
	if (r < 0) {
		log_error("%s", error.text);
	}
	if (pager.workers.n_threads[UFFD_CREW_PROMPT] > 0) {
		uffd_workers_stop(&pager.workers);
	}
	uffd_ring_deinit(&pager.ring);
	uffd_control_deinit(&pager.control);
	return r < 0 ? 1 : 0;
}
