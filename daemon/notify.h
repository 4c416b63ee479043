/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tells the service manager about the daemon's state, as sd_notify(3) does: a datagram to the
 * socket in NOTIFY_SOCKET. Nothing happens without one; a failure does not matter to the daemon. */
void daemon_notify(const char *state);
