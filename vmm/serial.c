/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The serial port of vmm/serial.h.
 *
 * A byte written to the transmitter leaves at once, so the transmitter is always empty. The console
 * descriptor is shared with the process that reads it, so it is not switched to non-blocking;
 * poll() before each write keeps a full pipe from stopping the VM: the byte is dropped and counted,
 * as is one beyond the rate that the console may have. Runs under the device lock.
 */

#include "vmm/serial.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	REG_DATA = 0,		  /* receive, transmit; divisor low */
	REG_INTERRUPT_ENABLE = 1, /* divisor high */
	REG_INTERRUPT_ID = 2,	  /* fifo control on writes */
	REG_LINE_CONTROL = 3,
	REG_MODEM_CONTROL = 4,
	REG_LINE_STATUS = 5,
	REG_MODEM_STATUS = 6,
	REG_SCRATCH = 7,
};

#define IER_RECEIVE  0x01
#define IER_TRANSMIT 0x02
#define IER_ALL	     0x0f

#define IIR_NONE     0x01
#define IIR_TRANSMIT 0x02
#define IIR_RECEIVE  0x04
#define IIR_FIFOS    0xc0

#define FCR_ENABLE	  0x01
#define FCR_CLEAR_RECEIVE 0x02

#define LCR_DIVISOR 0x80

#define MCR_DTR	     0x01
#define MCR_RTS	     0x02
#define MCR_OUT1     0x04
#define MCR_OUT2     0x08
#define MCR_LOOPBACK 0x10
#define MCR_ALL	     0x1f

#define LSR_RECEIVED 0x01
#define LSR_EMPTY    0x60 /* holding register and transmitter */

#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI	0x40
#define MSR_DCD 0x80

void vmm_serial_init(struct vmm_serial *serial, int console_fd,
		     void (*raise)(void *userdata, unsigned irq), void *userdata)
{
	struct stat info;

	*serial = (struct vmm_serial){
		.console_fd = console_fd,
		.raise = raise,
		.userdata = userdata,
		.divisor_low = 12,
	};
	if (console_fd >= 0 && fstat(console_fd, &info) == 0) {
		serial->console_is_file = S_ISREG(info.st_mode);
	}
}

void vmm_serial_deinit(struct vmm_serial *serial)
{
	serial->console_fd = base_fd_close(serial->console_fd);
}

static void put(struct vmm_serial *serial, uint8_t byte)
{
	struct pollfd item = { .fd = serial->console_fd, .events = POLLOUT };

	if (serial->console_fd < 0) {
		return;
	}
	/* The guest does not notice: a line that sends more slowly would hold its vCPU. */
	if (serial->limit.rate > 0) {
		if (vmm_ratelimit_wait_ns(&serial->limit, 1, base_clock_monotonic_ns()) > 0) {
			serial->limited_bytes++;
			return;
		}
		vmm_ratelimit_take(&serial->limit, 1);
	}
	if (serial->console_is_file && serial->console_bytes >= VMM_CONSOLE_MAX_BYTES) {
		if (ftruncate(serial->console_fd, 0) < 0 ||
		    lseek(serial->console_fd, 0, SEEK_SET) < 0) {
			serial->dropped_bytes++;
			return;
		}
		serial->console_bytes = 0;
	}
	if (poll(&item, 1, 0) == 1 && (item.revents & POLLOUT) &&
	    write(serial->console_fd, &byte, 1) == 1) {
		serial->console_bytes++;
	} else {
		serial->dropped_bytes++;
	}
}

static uint8_t interrupt_id(const struct vmm_serial *serial)
{
	if ((serial->interrupt_enable & IER_RECEIVE) && serial->has_received) {
		return IIR_RECEIVE;
	}
	if ((serial->interrupt_enable & IER_TRANSMIT) && serial->transmit_pending) {
		return IIR_TRANSMIT;
	}
	return IIR_NONE;
}

static void raise_if_pending(struct vmm_serial *serial)
{
	if (interrupt_id(serial) != IIR_NONE) {
		serial->raise(serial->userdata, VMM_SERIAL_IRQ);
	}
}

/* In loopback the modem control outputs appear as the modem status inputs. */
static uint8_t modem_status(const struct vmm_serial *serial)
{
	uint8_t control = serial->modem_control;

	if (!(control & MCR_LOOPBACK)) {
		return MSR_CTS | MSR_DSR | MSR_DCD;
	}
	return (uint8_t)((control & MCR_RTS ? MSR_CTS : 0) | (control & MCR_DTR ? MSR_DSR : 0) |
			 (control & MCR_OUT1 ? MSR_RI : 0) | (control & MCR_OUT2 ? MSR_DCD : 0));
}

uint8_t vmm_serial_read(struct vmm_serial *serial, unsigned offset)
{
	bool divisor = serial->line_control & LCR_DIVISOR;
	uint8_t id;

	switch (offset) {
	case REG_DATA:
		if (divisor) {
			return serial->divisor_low;
		}
		serial->has_received = false;
		return serial->received;
	case REG_INTERRUPT_ENABLE:
		return divisor ? serial->divisor_high : serial->interrupt_enable;
	case REG_INTERRUPT_ID:
		id = interrupt_id(serial);
		if (id == IIR_TRANSMIT) {
			serial->transmit_pending = false;
		}
		return id | (serial->fifo_control & FCR_ENABLE ? IIR_FIFOS : 0);
	case REG_LINE_CONTROL:
		return serial->line_control;
	case REG_MODEM_CONTROL:
		return serial->modem_control;
	case REG_LINE_STATUS:
		return LSR_EMPTY | (serial->has_received ? LSR_RECEIVED : 0);
	case REG_MODEM_STATUS:
		return modem_status(serial);
	case REG_SCRATCH:
		return serial->scratch;
	default:
		return 0xff;
	}
}

static void transmit(struct vmm_serial *serial, uint8_t value)
{
	if (serial->modem_control & MCR_LOOPBACK) {
		serial->received = value;
		serial->has_received = true;
	} else {
		put(serial, value);
	}
	serial->transmit_pending = true;
	raise_if_pending(serial);
}

void vmm_serial_write(struct vmm_serial *serial, unsigned offset, uint8_t value)
{
	bool divisor = serial->line_control & LCR_DIVISOR;

	switch (offset) {
	case REG_DATA:
		if (divisor) {
			serial->divisor_low = value;
		} else {
			transmit(serial, value);
		}
		break;
	case REG_INTERRUPT_ENABLE:
		if (divisor) {
			serial->divisor_high = value;
			break;
		}
		/* Enabling the transmit interrupt while the transmitter is empty raises it. */
		if (!(serial->interrupt_enable & IER_TRANSMIT) && (value & IER_TRANSMIT)) {
			serial->transmit_pending = true;
		}
		serial->interrupt_enable = value & IER_ALL;
		raise_if_pending(serial);
		break;
	case REG_INTERRUPT_ID:
		serial->fifo_control = value & FCR_ENABLE;
		if (value & FCR_CLEAR_RECEIVE) {
			serial->has_received = false;
		}
		break;
	case REG_LINE_CONTROL:
		serial->line_control = value;
		break;
	case REG_MODEM_CONTROL:
		serial->modem_control = value & MCR_ALL;
		break;
	case REG_SCRATCH:
		serial->scratch = value;
		break;
	default:
		break;
	}
}

void vmm_serial_resume(struct vmm_serial *serial)
{
	if (serial->interrupt_enable & IER_TRANSMIT) {
		serial->transmit_pending = true;
	}
	raise_if_pending(serial);
}

void vmm_serial_save(const struct vmm_serial *serial, struct base_writer *writer)
{
	base_writer_u8(writer, serial->interrupt_enable);
	base_writer_u8(writer, serial->fifo_control);
	base_writer_u8(writer, serial->line_control);
	base_writer_u8(writer, serial->modem_control);
	base_writer_u8(writer, serial->scratch);
	base_writer_u8(writer, serial->divisor_low);
	base_writer_u8(writer, serial->divisor_high);
	base_writer_u8(writer, serial->received);
	base_writer_u8(writer, serial->has_received);
	base_writer_u8(writer, serial->transmit_pending);
}

int vmm_serial_load(struct vmm_serial *serial, struct base_reader *reader, struct base_error *error)
{
	struct vmm_serial loaded = *serial;
	uint8_t has_received, transmit_pending;

	loaded.interrupt_enable = base_reader_u8(reader);
	loaded.fifo_control = base_reader_u8(reader);
	loaded.line_control = base_reader_u8(reader);
	loaded.modem_control = base_reader_u8(reader);
	loaded.scratch = base_reader_u8(reader);
	loaded.divisor_low = base_reader_u8(reader);
	loaded.divisor_high = base_reader_u8(reader);
	loaded.received = base_reader_u8(reader);
	has_received = base_reader_u8(reader);
	transmit_pending = base_reader_u8(reader);
	if (base_reader_finish(reader) < 0) {
		return base_error_set(error, -EBADMSG, "serial port: wrong length");
	}
	if (loaded.interrupt_enable & ~IER_ALL || loaded.fifo_control & ~FCR_ENABLE ||
	    loaded.modem_control & ~MCR_ALL || has_received > 1 || transmit_pending > 1) {
		return base_error_set(error, -EBADMSG, "serial port: register with undefined bits");
	}
	loaded.has_received = has_received;
	loaded.transmit_pending = transmit_pending;
	*serial = loaded;
	return 0;
}
