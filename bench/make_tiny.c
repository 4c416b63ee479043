/* SPDX-License-Identifier: Apache-2.0 */

/*
 * make-tiny STORE NAME: publishes a template whose guest is no Linux but a few hundred instructions
 * that take an identity, acknowledge it and echo what they are sent. With it the pool can be
 * measured without a guest kernel in the figure.
 *
 * One thread, blocking. Any failure ends the program with a message and status 1, and leaves
 * nothing in the store.
 */

#include "bench/tiny.h"
#include "snapshot/snapshot.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static int fill_manifest(struct snapshot_manifest *manifest, const struct bench_tiny *tiny,
			 const char *name, struct base_error *error)
{
	_cleanup_free_ char *path = bench_path("tiny-identity", BENCH_BUILT_TINY "/tiny-identity");
	_cleanup_fd_ int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	_cleanup_fd_ int guest_fd = -1;
	enum vmm_host_kind kind;
	int r;

	*manifest = (struct snapshot_manifest){
		.memory_bytes = tiny->memory_bytes,
		.n_vcpus = 1,
		.guest_cid = 3,
	};
	snprintf(manifest->template_name, sizeof(manifest->template_name), "%s", name);
	r = vmm_host_kind_detect(&kind);
	r = r ?: vmm_host_fingerprint(kvm_fd, &manifest->host_fingerprint);
	if (r < 0) {
		return base_error_set_errno(error, r, "looking at this host's KVM");
	}
	manifest->host_kind = kind;
	guest_fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (guest_fd < 0) {
		return base_error_set_errno(error, -errno, "opening the tiny guest");
	}
	return snapshot_digest_fd(guest_fd, manifest->kernel_digest, error);
}

static int copy_state(int from, int to, struct base_error *error)
{
	_cleanup_free_ char *data = NULL;
	size_t size = 0;
	int r;

	r = base_fd_read_file(from, SNAPSHOT_STATE_MAX_BYTES, &data, &size);
	r = r ?: base_fd_pwrite_full(to, data, size, 0);
	return r < 0 ? base_error_set_errno(error, r, "storing the state") : 0;
}

static int publish(const char *store_path, const char *name, struct base_error *error)
{
	_cleanup_tiny_ struct bench_tiny tiny = BENCH_TINY_NONE;
	_cleanup_(snapshot_store_freep) struct snapshot_store *store = NULL;
	_cleanup_(snapshot_writer_freep) struct snapshot_writer *writer = NULL;
	struct snapshot_manifest manifest;
	int r;

	if (!snapshot_name_is_valid(name)) {
		return base_error_set(error, -EINVAL, "%s: no name for a template", name);
	}
	r = bench_tiny_identity(&tiny, error);
	r = r ?: fill_manifest(&manifest, &tiny, name, error);
	r = r ?: snapshot_store_open(store_path, true, &store, error);
	r = r ?: snapshot_writer_new(store, &writer, error);
	r = r ?: copy_state(tiny.state, snapshot_writer_state_fd(writer), error);
	r = r
		    ?: snapshot_writer_memory(writer, tiny.memory, tiny.memory_bytes, 1, NULL, NULL,
					      error);
	return r ?: snapshot_writer_publish(writer, &manifest, error);
}

int main(int argc, char **argv)
{
	struct base_error error = {};

	if (argc != 3) {
		fprintf(stderr, "usage: make-tiny STORE NAME\n");
		return 2;
	}
	if (publish(argv[1], argv[2], &error) < 0) {
		fprintf(stderr, "make-tiny: %s\n", error.text);
		return 1;
	}
	return 0;
}
