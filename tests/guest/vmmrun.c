/* SPDX-License-Identifier: Apache-2.0 */

/*
 * vmmrun: boots a kernel in a warmbox-vmm of its own, with the console on standard output.
 *
 * A tool for developers: no pool, no snapshot, no agent. Ends when the guest does; the exit status
 * is the guest's exit code, 0 for a reset, 1 for a failure.
 */

#include "base/clock.h"
#include "tests/guest/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void usage(void)
{
	fprintf(stderr,
		"usage: vmmrun [-m MiB] [-c cpus] -k kernel [-i initramfs] [-d disk[:ro]]...\n"
		"              [-v vsock.sock] [-t seconds] [-a \"command line\"]\n"
		"The command line defaults to \"console=ttyS0\".\n");
}

static int listen_on(const char *path, int *ret_fd)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path)) {
		return -ENAMETOOLONG;
	}
	strcpy(address.sun_path, path);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 16) < 0) {
		return -errno;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int add_disk(struct harness_params *params, char *argument)
{
	size_t length = strlen(argument);
	bool read_only = length > 3 && strcmp(argument + length - 3, ":ro") == 0;
	int fd;

	if (params->n_disks == VMM_DISKS_MAX) {
		return -E2BIG;
	}
	if (read_only) {
		argument[length - 3] = '\0';
	}
	fd = open(argument, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	if (read_only) {
		params->read_only_disks |= 1u << params->n_disks;
	}
	params->disk_fds[params->n_disks++] = fd;
	return 0;
}

static int report(struct harness_vm *vm, uint64_t start_ns)
{
	double seconds = (double)(base_clock_monotonic_ns() - start_ns) / NSEC_PER_SEC;

	fprintf(stderr, "vmmrun: %s (%.3f s)\n", vm->over_text, seconds);
	switch (vm->over_reason) {
	case VMM_EXIT_GUEST:
		return vm->over_code;
	case VMM_EXIT_RESET:
		return 0;
	case VMM_EXIT_FAILURE:
		break;
	}
	return 1;
}

int main(int argc, char **argv)
{
	struct harness_params params = { .memory_bytes = MIB(128), .console_fd = STDOUT_FILENO };
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	const char *kernel = NULL, *initramfs = NULL, *cmdline = "console=ttyS0";
	int timeout_ms = 24 * 3600 * 1000;
	uint64_t start_ns;
	int option, r = 0;

	while ((option = getopt(argc, argv, "m:c:k:i:d:v:t:a:")) >= 0 && r == 0) {
		switch (option) {
		case 'm':
			params.memory_bytes = MIB(strtoull(optarg, NULL, 10));
			break;
		case 'c':
			params.n_vcpus = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'k':
			kernel = optarg;
			break;
		case 'i':
			initramfs = optarg;
			break;
		case 'd':
			r = add_disk(&params, optarg);
			break;
		case 'v':
			r = listen_on(optarg, &params.listener_fd);
			break;
		case 't':
			timeout_ms = (int)strtoul(optarg, NULL, 10) * 1000;
			break;
		case 'a':
			cmdline = optarg;
			break;
		default:
			usage();
			return 2;
		}
		if (r < 0) {
			fprintf(stderr, "vmmrun: %s: %s\n", optarg, strerror(-r));
			return 1;
		}
	}
	if (!kernel || optind != argc) {
		usage();
		return 2;
	}
	start_ns = base_clock_monotonic_ns();
	r = harness_create(&vm, &params);
	if (r == 0) {
		r = harness_boot(&vm, kernel, initramfs, cmdline);
	}
	if (r == 0) {
		r = harness_resume(&vm);
	}
	if (r < 0) {
		fprintf(stderr, "vmmrun: %s\n", vm.error.text);
		return 1;
	}
	r = harness_wait_exit(&vm, timeout_ms);
	if (r < 0) {
		fprintf(stderr, "vmmrun: waiting for the guest: %s\n", strerror(-r));
		return 1;
	}
	return report(&vm, start_ns);
}
