/* SPDX-License-Identifier: Apache-2.0 */

/* The daemon's configuration. An input is a file. What is accepted can be completed. */

#include "daemon/config.h"
#include "tests/fuzz/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct daemon_config config;
	struct base_error error = { 0 };
	int r;

	fuzz_file(data, size);
	daemon_config_init(&config);
	r = daemon_config_load(&config, fuzz_file_path(), &error);
	if (r == 0) {
		FUZZ_CHECK(daemon_config_complete(&config) == 0);
		FUZZ_CHECK(config.socket && config.runtime_dir && config.store);
		FUZZ_CHECK(config.n_templates <= DAEMON_TEMPLATES_MAX);
	} else {
		/* A refusal says in which file. */
		FUZZ_CHECK(strncmp(error.text, fuzz_file_path(), strlen(fuzz_file_path())) == 0);
	}
	daemon_config_deinit(&config);
	return 0;
}
