/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The port that ends the VM: one byte written to it is the exit code (VMM_EXIT_GUEST). For tiny
 * guests and a guest's init. */
#define VMM_PORT_EXIT 0xf4u
