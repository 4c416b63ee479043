/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Manifests for people and programs. */

#include "snapshot/snapshot.h"

#include <jansson.h>

/* A new reference; NULL without memory. */
json_t *cli_template_json(const struct snapshot_manifest *manifest);
