/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What both ends of the agent protocol must agree on. The protocol is described in
 * docs/protocol.md. Included by the agent (static, in the guest) and by host code; nothing but
 * constants.
 */

#define GUEST_AGENT_PORT 1024

#define GUEST_MESSAGE_MAX_BYTES (1024 * 1024)
#define GUEST_NESTING_MAX	16
#define GUEST_OUTPUT_MAX_BYTES	(32 * 1024)
#define GUEST_ARGV_MAX		256

#define GUEST_SEED_BYTES 64

/* What the agent's own program is started with, once, by an `identity` request with `touch`. */
#define GUEST_TOUCH_ARGUMENT "touch"

/* The whole response to a successful `identity` request with id 0: [1, 0, nil, true]. */
#define GUEST_IDENTITY_ACK	 "\x94\x01\x00\xc0\xc3"
#define GUEST_IDENTITY_ACK_BYTES 5

/*
 * Kernel command line parameters the agent reads (from /proc/cmdline, before it mounts the root):
 *   warmbox.root=<device>      block device with the root image (default /dev/vda)
 *   warmbox.fstype=<type>      its file system (default erofs)
 *   warmbox.fault=reseed       fault injection: the agent never reseeds and never acknowledges
 * The resident process and warm-up commands are started by the template builder over `exec`; a
 * resident process is an `exec` request with `resident: true`, which outlives its connection and
 * waits for the `resident` method.
 */
#define GUEST_PARAM_ROOT   "warmbox.root="
#define GUEST_PARAM_FSTYPE "warmbox.fstype="
#define GUEST_PARAM_FAULT  "warmbox.fault="
