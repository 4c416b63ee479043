/* SPDX-License-Identifier: Apache-2.0 */

/* warmboxd.conf: what is read, and that everything else is refused with its line. */

#include "daemon/config.h"

#include "base/fd.h"
#include "pool/pool.h"
#include "vmm/control.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static int load(struct daemon_config *config, const char *text, size_t size,
		struct base_error *error)
{
	_cleanup_fd_ int fd = memfd_create("config", MFD_CLOEXEC);
	char path[64];

	assert_true(fd >= 0);
	assert_int_equal(base_fd_write_full(fd, text, size), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	daemon_config_init(config);
	return daemon_config_load(config, path, error);
}

static void test_everything(void **state)
{
	static const char text[] = "# a comment\n"
				   "[daemon]\n"
				   "socket = /run/x/socket\n"
				   "group = kvm ; and another\n"
				   "runtime_dir = /run/x\n"
				   "store=/srv/store\n"
				   "vmm = /opt/warmbox-vmm\n"
				   "[pool]\n"
				   "default_target = 0\n"
				   "memory_floor_percent = 0\n"
				   "restore_concurrency = 8\n"
				   "identity_timeout_ms = 1500\n"
				   "acquire_timeout_ms = 86400000\n"
				   "\n"
				   "[template python]\n"
				   "target = 10000\n"
				   "[template node-20.x]\n"
				   "[template go]\n"
				   "min = 3\n"
				   "shells = 5\n"
				   "[template rust]\n"
				   "min = 1\n"
				   "max = 7\n";
	struct daemon_config config;
	struct base_error error = { 0 };

	assert_int_equal(load(&config, text, sizeof(text) - 1, &error), 0);
	assert_int_equal(daemon_config_complete(&config), 0);
	assert_string_equal(config.socket, "/run/x/socket");
	assert_string_equal(config.group, "kvm");
	assert_string_equal(config.runtime_dir, "/run/x");
	assert_string_equal(config.store, "/srv/store");
	assert_string_equal(config.vmm, "/opt/warmbox-vmm");
	assert_int_equal(config.keep.min, 0);
	assert_int_equal(config.keep.max, 0);
	assert_int_equal(config.memory_floor_percent, 0);
	assert_int_equal(config.restore_concurrency, 8);
	assert_int_equal(config.identity_timeout_ms, 1500);
	assert_int_equal(config.acquire_timeout_ms, 86400000);
	assert_int_equal(config.n_templates, 4);
	assert_string_equal(config.templates[0].name, "python");
	assert_int_equal(config.templates[0].keep.min, 10000);
	assert_int_equal(config.templates[0].keep.max, 10000);
	assert_string_equal(config.templates[1].name, "node-20.x");
	assert_int_equal(config.templates[1].keep.min, 0);
	assert_int_equal(config.templates[1].keep.max, 0);
	assert_int_equal(config.templates[1].keep.shells, DAEMON_DEFAULT_SHELLS);
	/* A default maximum gives way. */
	assert_int_equal(config.templates[2].keep.min, 3);
	assert_int_equal(config.templates[2].keep.max, 3);
	assert_int_equal(config.templates[2].keep.shells, 5);
	assert_int_equal(config.templates[3].keep.min, 1);
	assert_int_equal(config.templates[3].keep.max, 7);
	daemon_config_deinit(&config);
}

static void test_defaults(void **state)
{
	static const char low_max[] = "[pool]\ndefault_max = 1\n";
	struct daemon_config config;
	struct base_error error = { 0 };

	assert_int_equal(load(&config, "", 0, &error), 0);
	assert_int_equal(daemon_config_override(&config.runtime_dir, "/run/other"), 0);
	assert_int_equal(daemon_config_complete(&config), 0);
	assert_string_equal(config.socket, "/run/other/warmboxd.sock");
	assert_string_equal(config.store, DAEMON_STORE);
	assert_null(config.vmm);
	assert_int_equal(config.keep.min, DAEMON_DEFAULT_MIN);
	assert_int_equal(config.keep.max, DAEMON_DEFAULT_MAX);
	assert_int_equal(config.memory_floor_percent, DAEMON_MEMORY_FLOOR);
	assert_int_equal(config.identity_timeout_ms, DAEMON_IDENTITY_TIMEOUT_MS);
	assert_int_equal(config.acquire_timeout_ms, DAEMON_ACQUIRE_TIMEOUT_MS);
	daemon_config_deinit(&config);
	/* A default minimum gives way, too. */
	assert_int_equal(load(&config, low_max, strlen(low_max), &error), 0);
	assert_int_equal(daemon_config_complete(&config), 0);
	assert_int_equal(config.keep.min, 1);
	assert_int_equal(config.keep.max, 1);
	daemon_config_deinit(&config);
	assert_int_equal(daemon_config_load(&config, "/no/such/file", &error), -ENOENT);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text;
		const char *message;
	} cases[] = {
		{ "[daemon]\nsokcet = /x\n", ":2: sokcet: no such key" },
		{ "[demon]\n", ":1: demon: no such section" },
		{ "[daemon]\n\n[pool ]\ndefault_target = 1\n", ":3: pool : no such section" },
		{ "socket = /x\n", ":1: socket: stands in no section" },
		{ "[daemon]\nsocket = x\n", ":2: socket: not an absolute path" },
		{ "[daemon]\nsocket =\n", ":2: socket: not an absolute path" },
		{ "[daemon]\ngroup =\n", ":2: group: empty" },
		{ "[daemon]\nsocket = /x\nsocket = /y\n", ":3: socket: given twice" },
		{ "[daemon]\nsocket = /x\n  /y\n", ":3: socket: given twice" },
		{ "[pool]\ndefault_target = 10001\n", ":2: default_target: too large" },
		{ "[pool]\ndefault_target = -1\n", "not a whole number" },
		{ "[pool]\ndefault_target = 1k\n", "not a whole number" },
		{ "[pool]\ndefault_target = 0x10\n", "not a whole number" },
		{ "[pool]\ndefault_target =\n", "not a whole number" },
		{ "[pool]\nacquire_timeout_ms = 99999999999999999999999\n", "not a whole number" },
		{ "[pool]\nrestore_concurrency = 1025\n", "too large" },
		{ "[pool]\nthis is no key\n", ":2: line: neither" },
		{ "[pool]\nthis is no key\nbogus = 1\n", ":2: line: neither" },
		{ "[pool\ndefault_target = 1\n", ":1: line: neither" },
		{ "[template a/b]\n", ":1: template a/b: not the name" },
		{ "[template ]\n", "not the name" },
		{ "[template python]\nsize = 1\n", ":2: size: no such key" },
		{ "[template python]\ntarget = 1\ntarget = 2\n", ":3: target: given twice" },
		{ "[template python]\ntarget = 1\n[template python]\ntarget = 2\n",
		  ":4: target: given twice" },
		{ "[template python]\ntarget = many\n", ":2: target: not a whole" },
		{ "[template python]\nshells = 1025\n", ":2: shells: too large" },
		{ "[template python]\nmin = 2\nmax = 1\n",
		  ": [template python]: the minimum is more than the maximum" },
		{ "[template python]\ntarget = 2\nmax = 2\n", "either it or them" },
		{ "[pool]\ndefault_min = 2\ndefault_max = 1\n", ": [pool]: the minimum" },
		{ "[pool]\ndefault_target = 2\ndefault_min = 2\n", "either it or them" },
		{ "[tenant CI]\nuid = 1\n", ":1: tenant CI: not the name of a tenant" },
		{ "[tenant ci]\n", ": [tenant ci]: neither uid nor gid" },
		{ "[tenant ci]\nuid = no-such-user-at-all\n", ":2: uid: there is no such user" },
		{ "[tenant ci]\ngid = no-such-group-at-all\n", ":2: gid: there is no such group" },
		{ "[tenant ci]\nuid = 4294967295\n", ":2: uid: there is no such user" },
		{ "[tenant ci]\nuid = ,\n", ":2: uid: empty" },
		{ "[tenant ci]\nuid = 1\nuid = 2\n", ":3: uid: given twice" },
		{ "[tenant ci]\ncolour = 1\n", ":2: colour: no such key" },
		{ "[tenant ci]\nleases = many\n", ":2: leases: not a whole" },
		{ "[tenant ci]\nleases = 1000001\n", ":2: leases: too large" },
		{ "[tenant ci]\nrate = 0\n", ":2: rate: too small" },
		{ "[tenant ci]\nrate = 1000001\n", ":2: rate: too large" },
		{ "[tenant ci]\nburst = unlimited\n", ":2: burst: not a whole" },
		{ "[tenant ci]\nqueue = 4097\n", ":2: queue: too large" },
		{ "[tenant ci]\nadmin = maybe\n", ":2: admin: neither yes nor no" },
		{ "[tenant ci]\ntemplates = a/b\n", ":2: templates: not the name" },
		{ "[tenant ci]\nuid = 1\nburst = 2\n", ": [tenant ci]: a burst without" },
		{ "[tenant *]\nuid = 1\n", ":2: uid: [tenant *] is for" },
		{ "[tenant *]\nburst = 1\n", ": [tenant *]: a burst without" },
		{ "[tenant a]\nuid = 1,2\n[tenant b]\nuid = 3 2\n",
		  ": [tenant b]: a user of it is also of [tenant a]" },
		{ "[pool]\nmemory_floor_percent = 101\n", ":2: memory_floor_percent: too large" },
		{ "[pool]\ntouch = maybe\n", ":2: touch: none of its choices" },
		{ "[limits]\ncgroups = on\n", ":2: cgroups: none of its choices" },
		{ "[limits]\npids = 1\npids = 1\n", ":3: pids: given twice" },
		{ "[limits]\nvsock_connections = 257\n", ":2: vsock_connections: too large" },
		{ "[limits]\ndisk_mib_s = 8193\n", ":2: disk_mib_s: too large" },
		{ "[limits]\ncpu_weight = 10001\n", ":2: cpu_weight: too large" },
		{ "[limits]\ntarget = 1\n", ":2: target: no such key" },
		{ "[template python]\npids = 1\npids = 1\n", ":3: pids: given twice" },
		{ "[template python]\ncgroups = off\n", ":2: cgroups: no such key" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct daemon_config config;
		struct base_error error = { 0 };

		assert_int_equal(load(&config, cases[i].text, strlen(cases[i].text), &error),
				 -EINVAL);
		if (!strstr(error.text, cases[i].message)) {
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].text, error.text,
				 cases[i].message);
		}
		daemon_config_deinit(&config);
	}
}

static void test_tenants(void **state)
{
	static const char text[] = "[tenant ci]\n"
				   "uid = 1000, root 70000\n"
				   "gid = root,33\n"
				   "templates = python node-20.x\n"
				   "leases = 3\n"
				   "rate = 100\n"
				   "[tenant web]\n"
				   "gid = 1000\n"
				   "rate = 5\n"
				   "burst = 50\n"
				   "queue = 0\n"
				   "leases = unlimited\n"
				   "admin = yes\n"
				   "[tenant *]\n"
				   "leases = 0\n";
	struct daemon_config config;
	struct base_error error = { 0 };
	const struct pool_tenant_config *ci, *web;

	assert_int_equal(load(&config, text, sizeof(text) - 1, &error), 0);
	assert_int_equal(config.tenants.n, 2);
	ci = &config.tenants.named[0];
	assert_string_equal(ci->name, "ci");
	assert_int_equal(ci->n_uids, 3);
	assert_int_equal(ci->uids[0], 1000);
	assert_int_equal(ci->uids[1], 0);
	assert_int_equal(ci->uids[2], 70000);
	assert_int_equal(ci->n_gids, 2);
	assert_int_equal(ci->gids[0], 0);
	assert_int_equal(ci->n_templates, 2);
	assert_string_equal(ci->templates[1], "node-20.x");
	assert_int_equal(ci->quotas.leases, 3);
	assert_int_equal(ci->quotas.rate, 100);
	assert_int_equal(ci->quotas.burst, 100);
	assert_int_equal(ci->quotas.queue, POOL_QUOTA_QUEUE);
	assert_false(ci->admin);
	web = &config.tenants.named[1];
	assert_null(web->templates);
	assert_int_equal(web->quotas.leases, POOL_QUOTA_UNLIMITED);
	assert_int_equal(web->quotas.burst, 50);
	assert_int_equal(web->quotas.queue, 0);
	assert_true(web->admin);
	assert_int_equal(config.tenants.others.quotas.leases, 0);
	assert_int_equal(config.tenants.others.quotas.rate, POOL_QUOTA_UNLIMITED);
	daemon_config_deinit(&config);
}

static void test_limits_of_templates(void **state)
{
	static const char text[] = "[limits]\ncgroups = required\ncpu_percent = 150\npids = 0\n"
				   "[template a]\n[template b]\ncpu_percent = 0\npids = 9\n"
				   "memory_mib = 300\n";
	struct daemon_config config;
	struct base_error error = { 0 };

	assert_int_equal(load(&config, "", 0, &error), 0);
	assert_int_equal(daemon_config_complete(&config), 0);
	assert_int_equal(config.cgroups, POOL_CGROUPS_AUTO);
	assert_int_equal(config.limits.cpu_percent, 0);
	assert_int_equal(config.limits.cpu_weight, POOL_CGROUP_WEIGHT_DEFAULT);
	assert_int_equal(config.limits.memory_mib, 0);
	assert_int_equal(config.limits.memory_overhead_mib, DAEMON_MEMORY_OVERHEAD_MIB);
	assert_int_equal(config.limits.pids, DAEMON_PIDS);
	assert_int_equal(config.limits.disk_mib_s, 0);
	assert_int_equal(config.limits.console_kib_s, DAEMON_CONSOLE_KIB);
	assert_int_equal(config.limits.vsock_connections, VMM_LIMIT_CONNECTIONS_MAX);
	assert_int_equal(KIB(config.limits.vsock_buffer_kib), VMM_LIMIT_VSOCK_BYTES_MAX);
	assert_int_equal(config.limits.ttl_max_s, 0);
	daemon_config_deinit(&config);

	assert_int_equal(load(&config, text, sizeof(text) - 1, &error), 0);
	assert_int_equal(daemon_config_complete(&config), 0);
	assert_int_equal(config.cgroups, POOL_CGROUPS_REQUIRED);
	assert_int_equal(config.templates[0].limits.cpu_percent, 150);
	assert_int_equal(config.templates[0].limits.pids, 0);
	assert_int_equal(config.templates[0].limits.memory_mib, 0);
	assert_int_equal(config.templates[1].limits.cpu_percent, 0);
	assert_int_equal(config.templates[1].limits.pids, 9);
	assert_int_equal(config.templates[1].limits.memory_mib, 300);
	assert_int_equal(config.templates[1].limits.memory_overhead_mib,
			 DAEMON_MEMORY_OVERHEAD_MIB);
	daemon_config_deinit(&config);
}

static void test_limits(void **state)
{
	struct daemon_config config;
	struct base_error error = { 0 };
	char text[DAEMON_TEMPLATES_MAX * 32 + 64] = "";
	size_t used = 0;

	for (unsigned i = 0; i < DAEMON_TEMPLATES_MAX; i++) {
		used += (size_t)snprintf(text + used, sizeof(text) - used, "[template t%u]\n", i);
	}
	assert_int_equal(load(&config, text, used, &error), 0);
	assert_int_equal(config.n_templates, DAEMON_TEMPLATES_MAX);
	daemon_config_deinit(&config);
	used += (size_t)snprintf(text + used, sizeof(text) - used, "[template more]\n");
	assert_int_equal(load(&config, text, used, &error), -EINVAL);
	assert_non_null(strstr(error.text, "too many templates"));
	daemon_config_deinit(&config);

	used = 0;
	for (unsigned i = 0; i < DAEMON_TENANTS_MAX; i++) {
		used += (size_t)snprintf(text + used, sizeof(text) - used, "[tenant t%u]\nuid=%u\n",
					 i, i);
	}
	assert_int_equal(load(&config, text, used, &error), 0);
	assert_int_equal(config.tenants.n, DAEMON_TENANTS_MAX);
	daemon_config_deinit(&config);
	used += (size_t)snprintf(text + used, sizeof(text) - used, "[tenant more]\n");
	assert_int_equal(load(&config, text, used, &error), -EINVAL);
	assert_non_null(strstr(error.text, "too many tenants"));
	daemon_config_deinit(&config);

	memset(text, 'x', 1000);
	memcpy(text, "[daemon]\nsocket = /", 19);
	assert_int_equal(load(&config, text, 1000, &error), -EINVAL);
	assert_non_null(strstr(error.text, ":2: line: too long"));
	daemon_config_deinit(&config);

	/* Bytes that are no text do no harm. */
	for (size_t i = 0; i < 1000; i++) {
		text[i] = (char)(i * 2654435761u >> 13);
	}
	assert_int_equal(load(&config, text, 1000, &error), -EINVAL);
	daemon_config_deinit(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everything),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_tenants),
		cmocka_unit_test(test_limits_of_templates),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
