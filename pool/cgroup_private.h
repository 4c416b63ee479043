/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Between cgroup_find.c and cgroup_tree.c. */

#include "pool/cgroup_tree.h"

/* Writes text into <directory>/<id>/<file>; id NULL: into <directory>/<file>. 0 or -errno. */
int pool_cgroup_write(int directory, const char *id, const char *file, const char *text);
