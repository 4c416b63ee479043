/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A second CPU for tiny guests: second_start() sends it to second_main(), which never returns. The
 * first one's local APIC is then an x2APIC. */

#include "tests/guest/tiny/guest.h"

void second_start(void);
void second_main(void);
