/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The control protocol between the manager and warmbox-pager, the one process that fills image
 * memfds.
 *
 * Transport: base/message.h over the socket that is descriptor PAGER_CONTROL_FD in the pager. The
 * pager opens nothing but a second, O_DIRECT descriptor of the files it was given: everything it
 * touches arrives here. When the socket closes it fills what VMs wait for, without a limit, drops
 * their registrations, and exits. Replies may come in any order; the sequence says whose they are.
 *
 * The life of an image:
 *
 *    IMAGE ─▶ filling: working set first, then faults before background ─┬─▶ COMPLETE ─▶ IMAGE_GONE
 *                      VM, VM_GONE at any time                           └─▶ FAILED ───▶ IMAGE_GONE
 *
 * A page is written into the memfd with write(), never through a mapping: the kernel shows a page
 * of a memfd to others only when the write has filled it, while a store through a mapping shows
 * the page from its first byte on. And it is written only after its checksum was compared.
 *
 * A pager that died is started again, and is told of every image that was not complete and of every
 * VM of it. It trusts nothing that is in the memfd and fills all of it again with the same bytes;
 * VM wakes whatever waits there, so that faults the old pager took with it are taken again.
 */

#include "base/message.h"

#define PAGER_CONTROL_FD 3

/* At once. One more is refused with -EMFILE. */
#define PAGER_IMAGES_MAX 256
#define PAGER_VMS_MAX	 16384 /* of images that are not complete; each holds a descriptor */

enum pager_op {
	/*
	 * Takes an image to fill. arg0 its id, chosen by the manager and never used again; arg1
	 * bytes of guest memory; arg2 background fill limit in bytes of guest memory per second,
	 * 0: none; arg3 enum pager_fill_flags. Text: the chunk table's digest as in the manifest.
	 * fds: the image (a writable memfd of exactly arg1 bytes, sealed against a change of size),
	 * the snapshot's memory file (read-only). The reply comes when the chunk table has been
	 * read and checked; filling begins by itself. VM may be sent before that.
	 *
	 * A memfd that is sealed against writing was completed by an earlier pager, since nobody
	 * else can seal it: the file is not looked at, and COMPLETE follows the reply.
	 *
	 * 0, -EBADMSG (the file is damaged), -EINVAL (sizes, flags or seals are not as above),
	 * -EEXIST, -EMFILE, -ENOMEM, -ECANCELED (IMAGE_GONE came first). On failure the id is
	 * unknown, and VMs that were taken for it are forgotten.
	 */
	PAGER_OP_IMAGE = 1,

	/*
	 * Takes a VM whose memory maps an image. arg0 image id, arg1 VM id (the manager's, never
	 * used again), arg2 address of its guest memory in its process. fds: its userfaultfd, on
	 * which all of that memory is registered for missing pages. Faults that wait already are
	 * answered. Reply: 0 (arg0 = 1: the image is complete, so the registration was dropped at
	 * once, and the VM is not known), -ENOENT: no such image, -EEXIST, -EINVAL: the address or
	 * the descriptor cannot be what it should be, -EMFILE, -ENOMEM.
	 */
	PAGER_OP_VM = 2,

	/* The VM is no more. arg0 image id, arg1 VM id. Reply: 0, also when it was not known. */
	PAGER_OP_VM_GONE = 3,

	/* The image is of no more use. arg0 its id. Reply: 0, when nothing of it is held any more.
	 */
	PAGER_OP_IMAGE_GONE = 4,

	/*
	 * Counts of an image. arg0 its id. Reply: arg0 bytes of guest memory filled (not zero
	 * chunks), arg1 bytes of it that came from the working set, arg2 bytes read from the file,
	 * arg3 userfaults answered, arg4 of them for pages that were there already (another VM's
	 * fault, or the background, came first), arg5 chunks filled on demand, arg6 chunks filled
	 * in the background, arg7 enum pager_image_flags. -ENOENT.
	 */
	PAGER_OP_COUNTERS = 5,

	/*
	 * Event: every page that is not zero has been filled, all registrations are dropped, and
	 * the memfd is sealed against writing. arg0 image id, arg1 ns since IMAGE, then arg2..arg7
	 * as in the reply to PAGER_OP_COUNTERS from its arg0, arg1, arg2, arg3, arg5, arg7.
	 */
	PAGER_EVENT_COMPLETE = 0x101,

	/*
	 * Event: the file cannot be read or its content does not hold. arg0 image id, result
	 * -errno, text why. Faults on what is missing are never answered: the manager ends the VMs.
	 */
	PAGER_EVENT_FAILED = 0x102,

	/* Event: the working set is in memory. arg0 image id, arg1 ns since IMAGE, arg2 bytes. None
	 * for a template that has no working set. */
	PAGER_EVENT_PREFETCHED = 0x103,
};

enum pager_fill_flags {
	/* As if the template had no working set: faults and the background bring its pages, too.
	 * There is no PREFETCHED. It is there to measure what the working set gains. */
	PAGER_FILL_NO_WORKING_SET = 1 << 0,
};

enum pager_image_flags {
	PAGER_IMAGE_DIRECT = 1 << 0, /* read with O_DIRECT; else through the page cache */
	PAGER_IMAGE_COMPLETE = 1 << 1,
};
