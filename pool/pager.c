/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The manager's side of the pager.
 *
 * Happy path: an image is handed over before its first restore, and every VM that maps it while
 * it has holes. When the pager says that it is complete, the copies of its descriptors are closed,
 * and the pager forgets it.
 *
 * Failure: a pager that dies is started again (pool/helper.c) and told all of it again: the images
 * that are not complete and their VMs, of which this side keeps descriptors for that. Whatever
 * waits for a page waits so long. A request that the socket has no room for is kept until it has;
 * if that cannot be, the pager is killed, since beginning anew is what this file is good at.
 *
 * A VM may have been made when the image had holes and be heard of when it has none: nobody but
 * this side knows, so it drops the registration itself.
 */

#include "pool/pager.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "pool/internal.h"
#include "uffd/control.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>

/* A request that waits for room in the socket. */
struct pending {
	struct base_link link;
	int fds[2]; /* duplicates */
	size_t n_fds;
	struct base_message message;
};

/* --- sending --- */

static void pending_free(struct pending *pending)
{
	base_list_remove(&pending->link);
	for (size_t i = 0; i < pending->n_fds; i++) {
		base_fd_close(pending->fds[i]);
	}
	free(pending);
}

static void pending_clear(struct pool_pager *pager)
{
	while (!base_list_is_empty(&pager->pending)) {
		pending_free(CONTAINER_OF(pager->pending.next, struct pending, link));
	}
}

static int pending_add(struct pool_pager *pager, const struct base_message *message, const int *fds,
		       size_t n_fds)
{
	struct pending *pending = malloc(sizeof(*pending));

	if (!pending) {
		return -ENOMEM;
	}
	pending->message = *message;
	base_list_init(&pending->link);
	for (pending->n_fds = 0; pending->n_fds < n_fds; pending->n_fds++) {
		int fd = fcntl(fds[pending->n_fds], F_DUPFD_CLOEXEC, 0);

		if (fd < 0) {
			int r = -errno;

			pending_free(pending);
			return r;
		}
		pending->fds[pending->n_fds] = fd;
	}
	base_list_append(&pager->pending, &pending->link);
	return 0;
}

static void send_request(struct pool_pager *pager, const struct base_message *message,
			 const int *fds, size_t n_fds)
{
	int r = -EAGAIN;

	if (base_list_is_empty(&pager->pending)) {
		r = pool_helper_send(&pager->helper, message, fds, n_fds);
	}
	/* Without a pager there is nothing to say: the next one is told everything. */
	if (r == -EAGAIN && pending_add(pager, message, fds, n_fds) < 0) {
		pool_helper_kill(&pager->helper, "cannot be told what it has to do");
	}
}

static void send_pending(struct pool_helper *helper)
{
	struct pool_pager *pager = CONTAINER_OF(helper, struct pool_pager, helper);

	while (!base_list_is_empty(&pager->pending)) {
		struct pending *pending = CONTAINER_OF(pager->pending.next, struct pending, link);

		if (pool_helper_send(helper, &pending->message, pending->fds, pending->n_fds) < 0) {
			return;
		}
		pending_free(pending);
	}
}

static void send_image(struct pool_pager *pager, struct pool_image *image)
{
	const struct snapshot_manifest *manifest = snapshot_manifest(image->snapshot);
	struct base_message message = {
		.op = PAGER_OP_IMAGE,
		.sequence = image->pager.id,
		.arg = { image->pager.id, manifest->memory_bytes, pager->fill_limit_bytes },
	};
	int fds[] = { image->pager.fd, snapshot_memory_fd(snapshot_memory(image->snapshot)) };

	base_message_set_text(&message, manifest->chunk_table_digest);
	send_request(pager, &message, fds, ARRAY_SIZE(fds));
}

static void send_vm(struct pool_pager *pager, const struct pool_image *image,
		    const struct pool_pager_vm *vm)
{
	struct base_message message = {
		.op = PAGER_OP_VM,
		.sequence = vm->id,
		.arg = { image->pager.id, vm->id, vm->address },
	};

	send_request(pager, &message, &vm->fd, 1);
}

/* VM_GONE, IMAGE_GONE, COUNTERS. */
static void send_ids(struct pool_pager *pager, uint32_t op, uint64_t image_id, uint64_t vm_id)
{
	struct base_message message = {
		.op = op,
		.sequence = image_id,
		.arg = { image_id, vm_id },
	};

	send_request(pager, &message, NULL, 0);
}

/* --- images and VMs --- */

void pool_pager_image_init(struct pool_pager_image *image)
{
	*image = (struct pool_pager_image){ .fd = -1 };
	base_list_init(&image->link);
	base_list_init(&image->vms);
}

/* So that no access of the VM waits any more. A VM that has ended meanwhile, which the kernel calls
 * ENOMEM or ESRCH, is no failure. */
static int drop_registration(const struct pool_image *image, int fd, uint64_t address)
{
	struct uffdio_range range = { address, snapshot_manifest(image->snapshot)->memory_bytes };

	if (ioctl(fd, UFFDIO_UNREGISTER, &range) < 0 && errno != ENOMEM && errno != ESRCH) {
		return -errno;
	}
	return 0;
}

static void vm_free(struct pool_pager_vm *vm)
{
	base_list_remove(&vm->link);
	vm->sandbox->vm = NULL;
	base_fd_close(vm->fd);
	free(vm);
}

void pool_pager_add(struct pool_pager *pager, struct pool_image *image)
{
	image->pager.id = ++pager->last_id;
	base_list_append(&pager->images, &image->pager.link);
	send_image(pager, image);
}

/* The image is not filled any more, for whatever reason. */
static void image_leave(struct pool_pager *pager, struct pool_image *image)
{
	base_list_remove(&image->pager.link);
	while (!base_list_is_empty(&image->pager.vms)) {
		vm_free(CONTAINER_OF(image->pager.vms.next, struct pool_pager_vm, link));
	}
	send_ids(pager, PAGER_OP_IMAGE_GONE, image->pager.id, 0);
	image->pager.fd = base_fd_close(image->pager.fd);
}

void pool_pager_remove(struct pool_pager *pager, struct pool_image *image)
{
	if (!base_list_is_empty(&image->pager.link)) {
		image_leave(pager, image);
	}
}

int pool_pager_add_vm(struct pool_sandbox *sandbox, int fd, uint64_t address)
{
	struct pool_pager *pager = &sandbox->pool->pager;
	struct pool_image *image = sandbox->image;
	struct pool_pager_vm *vm;

	if (image->pager.complete) {
		int r = drop_registration(image, fd, address);

		base_fd_close(fd);
		return r;
	}
	vm = malloc(sizeof(*vm));
	if (!vm) {
		base_fd_close(fd);
		return -ENOMEM;
	}
	*vm = (struct pool_pager_vm){
		.sandbox = sandbox, .id = ++pager->last_id, .address = address, .fd = fd
	};
	base_list_init(&vm->link);
	base_list_append(&image->pager.vms, &vm->link);
	sandbox->vm = vm;
	send_vm(pager, image, vm);
	return 0;
}

void pool_pager_remove_vm(struct pool_sandbox *sandbox)
{
	if (sandbox->vm) {
		send_ids(&sandbox->pool->pager, PAGER_OP_VM_GONE, sandbox->image->pager.id,
			 sandbox->vm->id);
		vm_free(sandbox->vm);
	}
}

void pool_pager_ask(struct pool_pager *pager, struct pool_image *image)
{
	if (!base_list_is_empty(&image->pager.link) && image->pager.opened && !image->pager.asked) {
		image->pager.asked = true;
		send_ids(pager, PAGER_OP_COUNTERS, image->pager.id, 0);
	}
}

/* --- what the pager says --- */

static struct pool_image *find_image(struct pool_pager *pager, uint64_t id)
{
	BASE_LIST_FOR_EACH(link, &pager->images)
	{
		struct pool_image *image = CONTAINER_OF(link, struct pool_image, pager.link);

		if (image->pager.id == id) {
			return image;
		}
	}
	return NULL;
}

static struct pool_pager_vm *find_vm(struct pool_pager *pager, uint64_t id)
{
	BASE_LIST_FOR_EACH(image_link, &pager->images)
	{
		struct pool_image *image = CONTAINER_OF(image_link, struct pool_image, pager.link);

		BASE_LIST_FOR_EACH(link, &image->pager.vms)
		{
			struct pool_pager_vm *vm = CONTAINER_OF(link, struct pool_pager_vm, link);

			if (vm->id == id) {
				return vm;
			}
		}
	}
	return NULL;
}

static const char *reason(const struct base_message *message)
{
	return message->text_length > 0 ? message->text : strerrordesc_np(-message->result);
}

static void fail_image(struct pool_pager *pager, struct pool_image *image,
		       const struct base_message *message)
{
	bool opened = image->pager.opened;

	/* It may go with its last user in what is called here. */
	pool_image_ref(image);
	image_leave(pager, image);
	if (opened) {
		pool_image_failed(image, reason(message));
	} else {
		pool_image_opened(image, message->result, reason(message));
	}
	pool_image_unref(image);
}

static void on_image_reply(struct pool_pager *pager, const struct base_message *reply)
{
	struct pool_image *image = find_image(pager, reply->sequence);

	if (!image) {
		return; /* removed meanwhile */
	}
	if (reply->result < 0) {
		fail_image(pager, image, reply);
	} else if (!image->pager.opened) {
		image->pager.opened = true;
		pool_image_opened(image, 0, NULL);
	}
}

static void on_vm_reply(struct pool_pager *pager, const struct base_message *reply)
{
	struct pool_pager_vm *vm = find_vm(pager, reply->sequence);

	if (vm && reply->result < 0) {
		pool_sandbox_lose(vm->sandbox, POOL_CAUSE_VMM_DIED,
				  "the pager does not serve its memory: %s", reason(reply));
	} else if (vm) {
		vm->present = true;
	}
}

static void on_counters(struct pool_pager *pager, const struct base_message *reply)
{
	struct pool_image *image = find_image(pager, reply->sequence);

	if (image) {
		image->pager.asked = false;
		image->pager.filled_bytes = reply->arg[0];
		image->pager.faults_total = reply->arg[3];
	}
}

static void on_complete(struct pool_pager *pager, const struct base_message *event)
{
	struct pool_image *image = find_image(pager, event->arg[0]);

	if (!image) {
		return;
	}
	image->pager.complete = true;
	image->pager.complete_ns = event->arg[1];
	image->pager.filled_bytes = event->arg[2];
	image->pager.faults_total = event->arg[5];
	BASE_LIST_FOR_EACH(link, &image->pager.vms)
	{
		struct pool_pager_vm *vm = CONTAINER_OF(link, struct pool_pager_vm, link);

		/* If the pager dies before it gets to it, nobody else would. */
		if (!vm->present) {
			(void)drop_registration(image, vm->fd, vm->address);
		}
	}
	image_leave(pager, image);
	pool_image_completed(image);
}

static void message(struct pool_helper *helper, const struct base_message *message, const int *fds,
		    size_t n_fds)
{
	struct pool_pager *pager = CONTAINER_OF(helper, struct pool_pager, helper);
	struct pool_image *image;

	for (size_t i = 0; i < n_fds; i++) {
		base_fd_close(fds[i]);
	}
	switch (message->op) {
	case PAGER_OP_IMAGE:
		on_image_reply(pager, message);
		break;
	case PAGER_OP_VM:
		on_vm_reply(pager, message);
		break;
	case PAGER_OP_COUNTERS:
		on_counters(pager, message);
		break;
	case PAGER_EVENT_COMPLETE:
		on_complete(pager, message);
		break;
	case PAGER_EVENT_FAILED:
		image = find_image(pager, message->arg[0]);
		if (image) {
			fail_image(pager, image, message);
		}
		break;
	default:
		break; /* replies that nobody waits for, events that change nothing */
	}
}

/* --- a new pager --- */

static void started(struct pool_helper *helper)
{
	struct pool_pager *pager = CONTAINER_OF(helper, struct pool_pager, helper);

	pool_record_pager(CONTAINER_OF(pager, struct pool, pager), pool_helper_pid(helper));
	BASE_LIST_FOR_EACH(image_link, &pager->images)
	{
		struct pool_image *image = CONTAINER_OF(image_link, struct pool_image, pager.link);

		image->pager.asked = false;
		send_image(pager, image);
		BASE_LIST_FOR_EACH(link, &image->pager.vms)
		{
			struct pool_pager_vm *vm = CONTAINER_OF(link, struct pool_pager_vm, link);

			vm->present = false;
			send_vm(pager, image, vm);
		}
	}
}

static void gone(struct pool_helper *helper)
{
	pending_clear(CONTAINER_OF(helper, struct pool_pager, helper));
}

static const struct pool_helper_ops pager_ops = {
	.started = started,
	.message = message,
	.gone = gone,
	.writable = send_pending,
};

int pool_pager_init(struct pool_pager *pager, uv_loop_t *loop, const char *path,
		    uint64_t fill_limit_bytes)
{
	*pager = (struct pool_pager){ .fill_limit_bytes = fill_limit_bytes };
	base_list_init(&pager->images);
	base_list_init(&pager->pending);
	return pool_helper_init(&pager->helper, &pager_ops, loop, "pager", path,
				(const char *const[]){ NULL });
}

void pool_pager_deinit(struct pool_pager *pager)
{
	if (pager->pending.next) {
		pending_clear(pager);
	}
	pool_helper_deinit(&pager->helper);
}
