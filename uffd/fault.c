/* SPDX-License-Identifier: Apache-2.0 */

/*
 * VMs: their faults in, their wake-ups out.
 *
 * A VM's userfaultfd always has a read in the ring. A fault on a page that is there is woken at
 * once: another VM's fault or the background came first. For a zero chunk the hole is allocated.
 * For any other the VM is marked as waiting for the chunk and the schedule is asked for it; when
 * the chunk has been written, those marked are woken, and whoever still misses a page faults again.
 * So a wake-up too many is harmless, and a fault that an earlier pager took with it is repaired by
 * the wake-up of the whole range with which every VM begins.
 *
 * The VM's process is not trusted: addresses outside its memory are not answered, and it shares the
 * userfaultfd's flags, so that the read is left to the ring, which cannot be made to block. A
 * process that is gone makes its ioctls fail; its VM is let go, which is no error.
 *
 * Shut-down of a VM: its read is cancelled, and with the end of that it is freed. Main thread.
 */

#include "uffd/pager.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>

#define WORD_BITS 64

static int wake(const struct uffd_vm *vm, uint64_t offset, uint64_t bytes)
{
	struct uffdio_range range = { .start = vm->address + offset, .len = bytes };

	return ioctl(vm->uffd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

static int check(struct uffd_image *image, uint64_t id, uint64_t address, struct base_error *error)
{
	if (uffd_vm_find(image, id)) {
		return base_error_set(error, -EEXIST, "there is a VM of this id");
	}
	if (image->pager->n_vms >= PAGER_VMS_MAX) {
		return base_error_set(error, -EMFILE, "there are %u VMs already", PAGER_VMS_MAX);
	}
	if (address % SNAPSHOT_PAGE_BYTES != 0 || address > UINT64_MAX - image->bytes) {
		return base_error_set(error, -EINVAL, "the VM's memory is at no possible address");
	}
	return 0;
}

static bool is_filled(const struct uffd_image *image)
{
	return image->state == UFFD_IMAGE_FILLED || image->state == UFFD_IMAGE_SEALING ||
	       image->state == UFFD_IMAGE_COMPLETE;
}

static int begin(struct uffd_vm *vm)
{
	if (is_filled(vm->image)) {
		uffd_vm_release(vm);
		return 1;
	}
	if (vm->image->state != UFFD_IMAGE_OPENING) {
		uffd_vm_read(vm);
	}
	return 0;
}

int uffd_vm_new(struct uffd_image *image, uint64_t id, uint64_t address, int uffd,
		struct base_error *error)
{
	_cleanup_fd_ int owned_uffd = uffd;
	_cleanup_free_ struct uffd_vm *vm = NULL;
	uint64_t n_words = image->bytes / SNAPSHOT_CHUNK_BYTES / WORD_BITS + 1;
	int r = check(image, id, address, error);

	if (r < 0) {
		return r;
	}
	vm = calloc(1, sizeof(*vm) + n_words * sizeof(uint64_t));
	if (!vm) {
		return base_error_set_errno(error, -ENOMEM, "VM");
	}
	vm->image = image;
	vm->id = id;
	vm->address = address;
	vm->uffd = uffd;
	/* Whatever waits already faults again. And it tells whether this is a userfaultfd. */
	r = wake(vm, 0, image->bytes);
	if (r < 0) {
		return base_error_set_errno(error, -EINVAL, "no userfaultfd for such memory");
	}
	/* Kernels that cannot read it without blocking otherwise want to see the flag. */
	(void)fcntl(uffd, F_SETFL, O_NONBLOCK);
	vm->uffd = TAKE_FD(owned_uffd);
	base_list_append(&image->vms, &vm->link);
	image->pager->n_vms++;
	return begin(TAKE_PTR(vm));
}

struct uffd_vm *uffd_vm_find(struct uffd_image *image, uint64_t id)
{
	BASE_LIST_FOR_EACH(link, &image->vms)
	{
		struct uffd_vm *vm = CONTAINER_OF(link, struct uffd_vm, link);

		if (vm->id == id) {
			return vm;
		}
	}
	return NULL;
}

void uffd_vm_drop(struct uffd_vm *vm)
{
	struct uffd_pager *pager = vm->image->pager;

	base_list_remove(&vm->link);
	pager->n_vms--;
	vm->image = NULL;
	vm->uffd = base_fd_close(vm->uffd);
	if (vm->reading) {
		uffd_ring_cancel(&pager->ring, UFFD_TAG_VM, vm);
	} else {
		free(vm);
	}
}

void uffd_vm_release(struct uffd_vm *vm)
{
	struct uffdio_range range = { .start = vm->address, .len = vm->image->bytes };

	/* Failing: the process is gone, and with it who waits. */
	(void)ioctl(vm->uffd, UFFDIO_UNREGISTER, &range);
	uffd_vm_drop(vm);
}

void uffd_vm_read(struct uffd_vm *vm)
{
	vm->reading = true;
	if (vm->polling) {
		uffd_ring_poll(&vm->image->pager->ring, vm->uffd, POLLIN, UFFD_TAG_VM, vm);
	} else {
		uffd_ring_read(&vm->image->pager->ring, vm->uffd, vm->messages,
			       sizeof(vm->messages), UFFD_TAG_VM, vm);
	}
}

/* A page of a zero chunk: the hole becomes a page of zeros, for all VMs. */
static int answer_zero(struct uffd_image *image, uint64_t n)
{
	int r = uffd_fill_zero(image, n);

	if (r < 0) {
		struct base_error error = { 0 };

		base_error_set_errno(&error, r, "cannot fill the image");
		uffd_image_fail(image, r, error.text);
		return r;
	}
	image->chunks[n].present = uffd_image_pages(image, n);
	image->chunks[n].state = UFFD_CHUNK_PRESENT;
	return 0;
}

static int answer(struct uffd_vm *vm, uint64_t offset)
{
	struct uffd_image *image = vm->image;
	uint64_t page = offset / SNAPSHOT_PAGE_BYTES;
	uint64_t n = page / UFFD_CHUNK_PAGES;
	struct uffd_chunk *chunk = &image->chunks[n];
	uint16_t bit = (uint16_t)(1U << page % UFFD_CHUNK_PAGES);

	image->counters.faults++;
	if (chunk->present & bit) {
		image->counters.faults_present++;
		return wake(vm, page * SNAPSHOT_PAGE_BYTES, SNAPSHOT_PAGE_BYTES);
	}
	if (image->state != UFFD_IMAGE_FILLING) {
		return 0; /* failed: the manager ends the VM */
	}
	if (snapshot_memory_chunk(image->memory, n)->encoding == SNAPSHOT_CHUNK_ZERO) {
		/* Failing, the image has failed, and nobody is to be woken. */
		return answer_zero(image, n) < 0
			       ? 0
			       : wake(vm, n * SNAPSHOT_CHUNK_BYTES, uffd_image_covers(image, n));
	}
	vm->waiting[n / WORD_BITS] |= UINT64_C(1) << n % WORD_BITS;
	chunk->awaited = true;
	if (!(chunk->coming & bit)) {
		uffd_schedule_want(image, n);
	}
	return 0;
}

static int answer_message(struct uffd_vm *vm, const struct uffd_msg *message)
{
	uint64_t address = message->arg.pagefault.address;

	if (message->event != UFFD_EVENT_PAGEFAULT ||
	    message->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_MINOR) ||
	    address < vm->address || address - vm->address >= vm->image->bytes) {
		return 0; /* not the manager's registration */
	}
	return answer(vm, address - vm->address);
}

void uffd_vm_fault(struct uffd_vm *vm, int result)
{
	bool polled = vm->polling;

	vm->reading = vm->polling = false;
	if (!vm->image) {
		free(vm);
		return;
	}
	if (polled || result < 0) {
		/* An older kernel leaves it to us to wait; of other errors none is final. */
		vm->polling = !polled;
		uffd_vm_read(vm);
		return;
	}
	for (size_t i = 0; i < (size_t)result / sizeof(vm->messages[0]); i++) {
		if (answer_message(vm, &vm->messages[i]) < 0) {
			uffd_vm_drop(vm);
			return;
		}
	}
	uffd_vm_read(vm);
}

void uffd_vm_wake_chunk(struct uffd_image *image, uint64_t n)
{
	uint64_t bit = UINT64_C(1) << n % WORD_BITS;

	if (!image->chunks[n].awaited) {
		return;
	}
	image->chunks[n].awaited = false;
	BASE_LIST_FOR_EACH(link, &image->vms)
	{
		struct uffd_vm *vm = CONTAINER_OF(link, struct uffd_vm, link);

		if (!(vm->waiting[n / WORD_BITS] & bit)) {
			continue;
		}
		vm->waiting[n / WORD_BITS] &= ~bit;
		if (wake(vm, n * SNAPSHOT_CHUNK_BYTES, uffd_image_covers(image, n)) < 0) {
			uffd_vm_drop(vm);
		}
	}
}
