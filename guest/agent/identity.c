/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Identity of a restored VM. Runs once for each restore, before anything else is served, on the
 * agent's one thread; nothing here waits. Kernel entries: two for the generator, one each for clock
 * and host name. A failure leaves the VM half-made, which is why the caller then does not
 * acknowledge: such a VM is destroyed.
 */

#include "guest/agent/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

static int kernel_add_entropy(void *userdata, const uint8_t *seed, size_t size)
{
	const int *urandom_fd = userdata;
	/* struct rand_pool_info, whose data has no size of its own. */
	struct {
		int entropy_count; /* bits */
		int buf_size;
		uint8_t data[GUEST_SEED_BYTES];
	} pool = { .entropy_count = (int)size * 8, .buf_size = (int)size };
	int r = 0;

	_Static_assert(offsetof(typeof(pool), data) == offsetof(struct rand_pool_info, buf),
		       "laid out as the kernel's");
	if (size > sizeof(pool.data)) {
		return -EINVAL;
	}
	memcpy(pool.data, seed, size);
	if (ioctl(*urandom_fd, RNDADDENTROPY, &pool) < 0) {
		r = -errno;
	}
	explicit_bzero(&pool, sizeof(pool));
	return r;
}

static int kernel_reseed(void *userdata)
{
	const int *urandom_fd = userdata;

	return ioctl(*urandom_fd, RNDRESEEDCRNG) < 0 ? -errno : 0;
}

static int kernel_set_realtime(void *userdata, const struct timespec *now)
{
	return clock_settime(CLOCK_REALTIME, now) < 0 ? -errno : 0;
}

static int kernel_set_hostname(void *userdata, const char *name)
{
	return sethostname(name, strlen(name)) < 0 ? -errno : 0;
}

static uint64_t kernel_read_tsc(void *userdata)
{
	return __rdtsc();
}

const struct agent_identity_ops agent_identity_kernel_ops = {
	.add_entropy = kernel_add_entropy,
	.reseed = kernel_reseed,
	.set_realtime = kernel_set_realtime,
	.set_hostname = kernel_set_hostname,
	.read_tsc = kernel_read_tsc,
};

/* Maps a new file that holds the text and a newline. */
static int create_file(const char *path, const char *text, char **ret_mapping)
{
	size_t size = strlen(text);
	int r = 0;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);

	if (fd < 0) {
		return -errno;
	}
	if (ftruncate(fd, (off_t)size + 1) < 0) {
		r = -errno;
	} else {
		char *mapping = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (mapping == MAP_FAILED) {
			r = -errno;
		} else {
			/* This write is also what makes the page present and writable, so that the
			 * one after a restore does not fault. */
			memcpy(mapping, text, size);
			mapping[size] = '\n';
			*ret_mapping = mapping;
		}
	}
	close(fd);
	return r;
}

int agent_identity_create_files(struct agent_identity *identity, const char *machine_id_path,
				const char *boot_id_path)
{
	int r = create_file(machine_id_path, "00000000000000000000000000000000",
			    &identity->machine_id);

	if (r < 0) {
		return r;
	}
	return create_file(boot_id_path, "00000000-0000-0000-0000-000000000000",
			   &identity->boot_id);
}

int agent_identity_clock(const struct agent_identity_params *params, uint64_t now_tsc,
			 struct timespec *ret_now)
{
	/* Another core's counter may be a little behind. */
	uint64_t cycles = now_tsc > params->tsc ? now_tsc - params->tsc : 0;
	uint64_t now_ns;

	/* In two parts: the whole product does not fit 64 bits after three hours. */
	if (__builtin_mul_overflow(cycles / params->tsc_khz, NSEC_PER_MSEC, &now_ns) ||
	    __builtin_add_overflow(
		    now_ns, cycles % params->tsc_khz * NSEC_PER_MSEC / params->tsc_khz, &now_ns) ||
	    __builtin_add_overflow(now_ns, params->realtime_ns, &now_ns)) {
		return -ERANGE;
	}
	ret_now->tv_sec = (time_t)(now_ns / NSEC_PER_SEC);
	ret_now->tv_nsec = (long)(now_ns % NSEC_PER_SEC);
	return 0;
}

static int step_clock(struct agent_identity *identity, const struct agent_identity_params *params)
{
	struct timespec now;
	int r = agent_identity_clock(params, identity->ops->read_tsc(identity->userdata), &now);

	return r < 0 ? r : identity->ops->set_realtime(identity->userdata, &now);
}

int agent_identity_apply(struct agent_identity *identity,
			 const struct agent_identity_params *params, const char **ret_step)
{
	int r;

	*ret_step = "add entropy to the random number generator";
	r = identity->ops->add_entropy(identity->userdata, params->seed, sizeof(params->seed));
	if (r < 0) {
		return r;
	}
	*ret_step = "reseed the random number generator";
	r = identity->ops->reseed(identity->userdata);
	if (r < 0) {
		return r;
	}
	*ret_step = "set the clock";
	r = step_clock(identity, params);
	if (r < 0) {
		return r;
	}
	if (identity->machine_id) {
		memcpy(identity->machine_id, params->machine_id, AGENT_MACHINE_ID_CHARS);
	}
	if (identity->boot_id) {
		memcpy(identity->boot_id, params->boot_id, AGENT_BOOT_ID_CHARS);
	}
	*ret_step = "set the host name";
	return identity->ops->set_hostname(identity->userdata, params->hostname);
}
