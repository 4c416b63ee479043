/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A program that speaks the VMM's side of the control protocol and has no VM: the pool's tests
 * decide what it does wrong, and when.
 *
 * The first disk is its script, lines of `key=value`:
 *    fault=<name>       what to do wrong; see the uses of is_fault()
 *    times=<n>          only the first n processes do (counted in the file `counter`)
 *    counter=<path>
 *    log=<path>         the identity requests it gets, each with a 16 bit length in front
 *    slow_ms=<n>        sleep before the acknowledgement
 *    dirty=<n>          map the memory, read 16 pages of it and write n of them
 *    expect=<n>:<b>     the byte of the memory at n is b when the state is loaded
 *    eat_mib=<n>        when claimed, take so much memory and keep it
 *    connect=<port>     when claimed, connect to the host at that port and say "hello"
 *
 * When claimed it echoes what comes over the agent's stream, and says "vsock" to whoever connects
 * to its socket. It checks what it was given, and refuses CREATE when that is not as the contract
 * says.
 */

#include "base/clock.h"
#include "base/fd.h"
#include "guest/agent.h"
#include "vmm/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char script[4096];
static int stream = -1, listener = -1;
static char fault[64];
static unsigned n_resumes;
static char *memory;
static int userfaultfd = -1;
static uint64_t create_received_ns, load_taken_ns;

static bool setting(const char *key, char *out, size_t size)
{
	size_t length = strlen(key);

	for (char *line = script; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, length) == 0 && line[length] == '=') {
			snprintf(out, size, "%.*s", (int)strcspn(line + length + 1, "\n"),
				 line + length + 1);
			return true;
		}
	}
	return false;
}

static unsigned number(const char *key)
{
	char text[32];

	return setting(key, text, sizeof(text)) ? (unsigned)strtoul(text, NULL, 10) : 0;
}

static bool is_fault(const char *name)
{
	return strcmp(fault, name) == 0;
}

/* Whether this process is among the first `times`. */
static bool is_chosen(void)
{
	char path[256];
	unsigned times = number("times");

	if (!setting("counter", path, sizeof(path))) {
		return true;
	}

	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (write(fd, "x", 1) != 1) {
		_exit(90);
	}

	off_t mine = lseek(fd, 0, SEEK_CUR); /* after an append: where this process wrote */

	close(fd);
	return mine <= (off_t)times;
}

static void send_message(const struct base_message *message, int fd)
{
	if (base_message_send(VMM_CONTROL_FD, message, &fd, fd >= 0 ? 1 : 0) < 0) {
		_exit(0); /* the manager has gone */
	}
}

static void reply(const struct base_message *request, int result, const char *text)
{
	struct base_message answer = { .op = request->op,
				       .sequence = request->sequence,
				       .result = result };

	answer.text_length = (uint32_t)snprintf(answer.text, sizeof(answer.text), "%s", text);
	if (request->op == VMM_OP_CREATE) {
		answer.arg[0] = create_received_ns;
		answer.arg[4] = base_clock_monotonic_ns();
		answer.arg[5] = (uintptr_t)memory;
	}
	if (request->op == VMM_OP_LOAD) {
		answer.arg[0] = base_clock_realtime_ns();
		answer.arg[1] = 123456789;
		answer.arg[2] = 2000000;
		answer.arg[3] = load_taken_ns;
		answer.arg[4] = base_clock_monotonic_ns();
	}
	send_message(&answer, request->op == VMM_OP_CREATE && result == 0 ? userfaultfd : -1);
}

static void send_event(uint32_t op, uint64_t arg0, uint64_t arg1, const char *text)
{
	struct base_message event = { .op = op, .arg = { arg0, arg1 } };

	event.text_length = (uint32_t)snprintf(event.text, sizeof(event.text), "%s", text);
	send_message(&event, -1);
}

static void send_entered(void)
{
	send_event(VMM_EVENT_ENTERED, base_clock_monotonic_ns(), 0, "");
}

/* Descriptors of this process but the three standard ones and that of the directory. */
static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir)) {
		n++;
	}
	closedir(dir);
	return n - 2 /* . and .. */ - 3 - 1;
}

/* NULL, or what is not as it should be. */
static const char *check_create(const struct base_message *create, const int *fds, size_t n_fds)
{
	struct stat status;
	int listening = 0;
	socklen_t size = sizeof(listening);
	size_t state = 3 + create->arg[3];
	extern char **environ;

	if (!(create->arg[2] & VMM_CREATE_STATE) || !(create->arg[2] & VMM_CREATE_ADOPTABLE) ||
	    n_fds != state + 2 + (create->arg[2] & VMM_CREATE_LAZY ? 1 : 0)) {
		return "number of descriptors";
	}
	if ((fcntl(fds[state], F_GET_SEALS) & F_SEAL_WRITE) == 0) {
		return "the state may change";
	}
	if (fstat(fds[0], &status) < 0 || (uint64_t)status.st_size != create->arg[0]) {
		return "size of the memory";
	}
	if ((fcntl(fds[0], F_GETFL) & O_ACCMODE) != O_RDONLY) {
		return "the memory is writable";
	}
	if (getsockopt(fds[2], SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || !listening) {
		return "the listener does not listen";
	}
	for (size_t i = 3; i < state; i++) {
		if ((fcntl(fds[i], F_GETFL) & O_ACCMODE) != O_RDONLY) {
			return "a disk is writable";
		}
	}
	if (create->arg[4] != (UINT64_C(1) << create->arg[3]) - 1) {
		return "disks are not all read-only";
	}
	if (environ && environ[0]) {
		return "the environment is not empty";
	}
	if (getsid(0) != getpid()) {
		return "not in a session of its own";
	}
	return NULL;
}

static void say_on(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) < 0) {
		_exit(91);
	}
}

/* Takes the identity request as the agent would, and answers. */
static void apply_identity(void)
{
	uint8_t request[1024];
	ssize_t n = recv(stream, request, sizeof(request), MSG_DONTWAIT);
	char path[256];

	/* It has to be there before the guest runs. */
	if (n < 12 || memcmp(request, "\x94\x00\x00\xa8identity", 12) != 0) {
		_exit(92);
	}
	if (setting("log", path, sizeof(path))) {
		uint8_t record[2 + sizeof(request)] = { (uint8_t)(n & 255), (uint8_t)(n >> 8) };
		int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

		memcpy(record + 2, request, (size_t)n);
		if (write(fd, record, (size_t)n + 2) < 0) {
			_exit(93);
		}
		close(fd);
	}
	usleep(number("slow_ms") * 1000);
	if (is_fault("no-ack")) {
		return;
	}
	if (is_fault("close-stream")) {
		close(stream);
		stream = -1;
		return;
	}
	if (is_fault("bad-ack")) {
		say_on(stream, "\x94\x01\xc3");
		return;
	}
	if (is_fault("long-ack")) {
		base_fd_write_full(stream, GUEST_IDENTITY_ACK "!", GUEST_IDENTITY_ACK_BYTES + 1);
		return;
	}
	/* In two pieces: a stream has no boundaries. */
	base_fd_write_full(stream, GUEST_IDENTITY_ACK, 2);
	if (is_fault("half-ack")) {
		return;
	}
	base_fd_write_full(stream, &GUEST_IDENTITY_ACK[2], GUEST_IDENTITY_ACK_BYTES - 2);
}

/* The faults of one request: `<name>-error`, `-die`, `-silent`, `-sequence`, `-op`, `-twice`,
 * `-short`, `-fd`. True when it must not be answered. */
static bool spoil(const char *name, const struct base_message *request)
{
	size_t length = strlen(name);
	struct base_message answer = { .op = request->op, .sequence = request->sequence };

	if (strncmp(fault, name, length) != 0 || fault[length] != '-') {
		return false;
	}

	const char *what = fault + length + 1;

	if (strcmp(what, "error") == 0) {
		reply(request, -EIO, "told to fail");
	} else if (strcmp(what, "die") == 0) {
		_exit(7);
	} else if (strcmp(what, "sequence") == 0) {
		answer.sequence += 1000;
		send_message(&answer, -1);
	} else if (strcmp(what, "op") == 0) {
		answer.op = 77;
		send_message(&answer, -1);
	} else if (strcmp(what, "twice") == 0) {
		reply(request, 0, "");
		reply(request, 0, "");
	} else if (strcmp(what, "short") == 0) {
		send(VMM_CONTROL_FD, "short", 5, MSG_NOSIGNAL);
	} else if (strcmp(what, "fd") == 0) {
		send_message(&answer, STDIN_FILENO);
	} else if (strcmp(what, "hangup") == 0) {
		close(VMM_CONTROL_FD);
		for (;;) {
			pause();
		}
	}
	return true;
}

/* Memory that is really there. */
static void eat(unsigned mib)
{
	for (unsigned i = 0; i < mib; i++) {
		char *piece = mmap(NULL, MIB(1), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		if (piece == MAP_FAILED) {
			_exit(91);
		}
		memset(piece, 1, MIB(1));
	}
}

static void on_claimed(const struct base_message *request)
{
	if (spoil("claim", request)) {
		return;
	}
	reply(request, 0, "");
	eat(number("eat_mib"));
	if (is_fault("exit-guest")) {
		send_event(VMM_EVENT_EXITED, VMM_EXIT_GUEST, 3, "exit port");
		_exit(0);
	}
	if (is_fault("exit-reset")) {
		send_event(VMM_EVENT_EXITED, VMM_EXIT_RESET, 0, "reset");
		_exit(0);
	}
	if (is_fault("exit-failure")) {
		send_event(VMM_EVENT_EXITED, VMM_EXIT_FAILURE, EIO, "KVM gave up");
		_exit(1);
	}
	send_entered();
	if (is_fault("connect-flood")) {
		for (uint64_t id = 0;; id++) {
			send_event(VMM_EVENT_CONNECT, id, 1, "");
		}
	}
	if (number("connect")) {
		send_event(VMM_EVENT_CONNECT, 5, number("connect"), "");
	}
}

static void on_resume(const struct base_message *request)
{
	if (n_resumes++ > 0) {
		on_claimed(request);
		return;
	}
	if (spoil("resume", request)) {
		return;
	}
	reply(request, 0, "");
	send_entered();
	apply_identity();
}

/* Checks that the page at the offset holds the byte, over and over: whoever sees a page before it
 * is filled sees something else. */
static void check_memory(void)
{
	unsigned long offset, byte;
	char text[64];

	if (setting("expect", text, sizeof(text)) && sscanf(text, "%lu:%lu", &offset, &byte) == 2 &&
	    (uint8_t)memory[offset] != byte) {
		_exit(99);
	}
}

/* No request: there is no answer. Console bytes of 77 make this guest hit its limits: of the disk
 * twice, and once of the console. */
static void on_limits(const struct base_message *message)
{
	struct base_message event = { .op = VMM_EVENT_LIMITED, .arg = { 3, 1000, 0 } };

	if (message->sequence != 0) {
		_exit(92);
	}
	if (message->arg[4] == 77) {
		send_message(&event, -1);
		event.arg[0] = 4;
		send_message(&event, -1);
	}
}

static void on_message(const struct base_message *message, const int *fds, size_t n_fds)
{
	switch (message->op) {
	case VMM_OP_LOAD:
		load_taken_ns = base_clock_monotonic_ns();
		if (n_fds != 1) {
			_exit(95);
		}
		close(fds[0]);
		check_memory();
		if (!spoil("load", message)) {
			reply(message, 0, "");
		}
		break;
	case VMM_OP_ATTACH:
		stream = n_fds == 1 && message->arg[0] == GUEST_AGENT_PORT ? fds[0] : -1;
		if (!spoil("attach", message)) {
			reply(message, 0, "");
		}
		break;
	case VMM_OP_LIMITS:
		on_limits(message);
		break;
	case VMM_OP_RESUME:
		on_resume(message);
		break;
	case VMM_OP_PAUSE:
		if (!spoil("pause", message)) {
			reply(message, 0, "");
		}
		if (is_fault("parked-die")) {
			_exit(8);
		}
		break;
	case VMM_OP_CONNECTED:
		if (message->result == 0 && n_fds == 1) {
			say_on(fds[0], "hello");
			close(fds[0]);
		} else {
			char text[64];

			snprintf(text, sizeof(text), "connect: %d;", message->result);
			say_on(stream, text);
		}
		break;
	default:
		_exit(94);
	}
}

static void take_message(struct base_message *message, int fds[BASE_MESSAGE_FDS_MAX], size_t *n_fds)
{
	*n_fds = 0;
	if (base_message_receive(VMM_CONTROL_FD, message, fds, n_fds) <= 0) {
		_exit(0);
	}
}

/* Maps the memory, and with VMM_CREATE_LAZY has its missing pages waited for. */
static void map_memory(int fd, size_t size, int device, bool lazy)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM };
	struct uffdio_register range = { .range.len = size, .mode = UFFDIO_REGISTER_MODE_MISSING };

	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (memory == MAP_FAILED) {
		_exit(97);
	}
	if (!lazy) {
		return;
	}
	userfaultfd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (userfaultfd < 0) {
		userfaultfd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	}
	range.range.start = (uintptr_t)memory;
	if (userfaultfd < 0 || ioctl(userfaultfd, UFFDIO_API, &api) < 0 ||
	    ioctl(userfaultfd, UFFDIO_REGISTER, &range) < 0) {
		_exit(98);
	}
}

static void use_memory(void)
{
	for (unsigned i = 0; i < 16; i++) {
		volatile char *page = memory + i * 4096;

		(void)*page;
		if (i < number("dirty")) {
			*page = 1;
		}
	}
}

static void start(void)
{
	struct base_message create;
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds;
	unsigned stray = count_fds() - 2 /* control and KVM */;

	take_message(&create, fds, &n_fds);
	create_received_ns = base_clock_monotonic_ns();
	if (create.op != VMM_OP_CREATE || n_fds < 4 ||
	    pread(fds[3], script, sizeof(script) - 1, 0) < 0) {
		_exit(95);
	}
	if (is_chosen()) {
		setting("fault", fault, sizeof(fault));
	}

	const char *wrong = stray > 0 ? "stray descriptors" : check_create(&create, fds, n_fds);

	if (wrong) {
		reply(&create, -EPROTO, wrong);
		_exit(0);
	}
	map_memory(fds[0], create.arg[0], fds[n_fds - 2], create.arg[2] & VMM_CREATE_LAZY);
	listener = fds[2];
	if (spoil("create", &create)) {
		for (;;) {
			pause();
		}
	}
	reply(&create, 0, "");
	if (number("dirty")) {
		use_memory();
	}
}

static void echo(void)
{
	char data[256];
	ssize_t n = read(stream, data, sizeof(data));

	if (n <= 0 || write(stream, data, (size_t)n) < 0) {
		close(stream);
		stream = -1;
	}
}

int main(void)
{
	start();
	for (;;) {
		bool claimed = n_resumes > 1;
		struct pollfd items[] = {
			{ .fd = VMM_CONTROL_FD, .events = POLLIN },
			{ .fd = claimed ? stream : -1, .events = POLLIN },
			{ .fd = claimed ? listener : -1, .events = POLLIN },
		};

		if (poll(items, ARRAY_SIZE(items), -1) < 0) {
			return 96;
		}
		if (items[0].revents) {
			struct base_message message;
			int fds[BASE_MESSAGE_FDS_MAX];
			size_t n_fds;

			take_message(&message, fds, &n_fds);
			on_message(&message, fds, n_fds);
		}
		if (items[1].revents) {
			echo();
		}
		if (items[2].revents) {
			int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

			say_on(client, "vsock");
			close(client);
		}
	}
}
