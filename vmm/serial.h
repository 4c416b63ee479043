/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A 16550A serial port, as much of it as a console needs: what the guest sends goes to the console
 * descriptor as far as its limit goes, the rest is dropped and counted; nothing is ever received
 * but in loopback mode. Everything runs under the device lock.
 */

#include "base/bytes.h"
#include "base/error.h"
#include "vmm/ratelimit.h"

#include <stdbool.h>

#define VMM_SERIAL_PORT	 0x3f8u
#define VMM_SERIAL_PORTS 8u
#define VMM_SERIAL_IRQ	 4u

/* A console that is a regular file starts over at this size: the guest cannot fill the disk. */
#define VMM_CONSOLE_MAX_BYTES MIB(4)

struct vmm_serial {
	int console_fd; /* owned; -1 for none */
	bool console_is_file;
	uint64_t console_bytes;
	uint64_t dropped_bytes;	    /* that the console had no room for */
	struct vmm_ratelimit limit; /* of console bytes; the owner sets it */
	uint64_t limited_bytes;	    /* dropped since they were beyond it */
	void (*raise)(void *userdata, unsigned irq);
	void *userdata;

	uint8_t interrupt_enable, fifo_control, line_control, modem_control, scratch;
	uint8_t divisor_low, divisor_high;
	uint8_t received;
	bool has_received;
	bool transmit_pending; /* "transmitter empty" not yet acknowledged */
};

/* console_fd is consumed. */
void vmm_serial_init(struct vmm_serial *serial, int console_fd,
		     void (*raise)(void *userdata, unsigned irq), void *userdata);
void vmm_serial_deinit(struct vmm_serial *serial);

uint8_t vmm_serial_read(struct vmm_serial *serial, unsigned offset);
void vmm_serial_write(struct vmm_serial *serial, unsigned offset, uint8_t value);

/* After a load, when the VM runs again: a transmit interrupt that was lost would leave the guest's
 * driver waiting for ever, one too many does no harm. */
void vmm_serial_resume(struct vmm_serial *serial);

void vmm_serial_save(const struct vmm_serial *serial, struct base_writer *writer);
/* Nothing changes on failure. 0 or -EBADMSG with the field in error. */
int vmm_serial_load(struct vmm_serial *serial, struct base_reader *reader,
		    struct base_error *error);
