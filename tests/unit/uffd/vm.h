/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A process that stands in for a VMM: it maps an image privately, registers all of it for missing
 * pages, and reads or writes what it is told to. Failures end the test.
 */

#include "base/util.h"

#include <stdbool.h>

#include <sys/types.h>

struct fake_vm {
	pid_t pid;
	int uffd;	  /* this side's descriptor of it, for the pager */
	uint64_t address; /* in that process */
	int socket;	  /* blocking; to tell it what to do */
};

/* memfd is borrowed; the process maps a read-only descriptor of it. */
struct fake_vm fake_vm_start(int memfd, uint64_t bytes);

/* Which pages to read: page `first`, and `stride` further each time, around the end. */
struct fake_vm_order {
	uint64_t n_pages; /* of the memory */
	uint64_t first, stride, count;
};

/* Asks for the sum (below) of what it reads. Does not wait. */
void fake_vm_ask(struct fake_vm *vm, struct fake_vm_order order);
/* The answer. Waits at most timeout_ms; the test fails then. */
uint64_t fake_vm_answer(struct fake_vm *vm, int timeout_ms);
/* True when there is no answer yet after so long. */
bool fake_vm_is_silent(struct fake_vm *vm, int timeout_ms);

/* Kills it, if it lives, and forgets everything. */
void fake_vm_end(struct fake_vm *vm);

/* A number that depends on each byte of the pages and on where they are, not on the order in which
 * they are read. */
uint64_t fake_vm_sum(const uint8_t *memory, struct fake_vm_order order);
