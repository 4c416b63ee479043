/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a figure depends on that is not warmbox: the machine, its kernel and how they are set, and
 * what is wrong with measuring here and now. Only looks. Main thread.
 */

#include "cli/bench.h"
#include "cli/git.h"
#include "vmm/vmm.h"

#include <linux/magic.h>
#include <sched.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* More of the cores busy with something else than this is worth a warning. */
#define LOAD_MOST  0.25
#define LINE_BYTES 8192

/* The first line of a file, or an empty string. */
static const char *first_line(const char *path, char *buffer, size_t size)
{
	FILE *file = fopen(path, "re");

	buffer[0] = '\0';
	if (file) {
		if (fgets(buffer, (int)size, file)) {
			buffer[strcspn(buffer, "\n")] = '\0';
		}
		fclose(file);
	}
	return buffer;
}

static void set_file(json_t *host, const char *key, const char *path)
{
	char text[256];

	if (*first_line(path, text, sizeof(text))) {
		json_object_set_new(host, key, json_string(text));
	}
}

/* "always [madvise] never": the word in brackets. */
static void set_choice(json_t *host, const char *key, const char *path)
{
	char text[256];
	const char *open = strchr(first_line(path, text, sizeof(text)), '[');
	const char *close = open ? strchr(open, ']') : NULL;

	if (close) {
		json_object_set_new(host, key, json_stringn(open + 1, (size_t)(close - open - 1)));
	}
}

/* The value of "key : value" or "key: value" in a file of such lines. */
static bool find_field(const char *path, const char *key, char *value, size_t size)
{
	FILE *file = fopen(path, "re");
	char line[LINE_BYTES];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (colon && strncmp(line, key, strlen(key)) == 0) {
			colon += 1 + strspn(colon + 1, " \t");
			colon[strcspn(colon, "\n")] = '\0';
			snprintf(value, size, "%s", colon);
			found = true;
		}
	}
	if (file) {
		fclose(file);
	}
	return found;
}

static void set_memory(json_t *host, const char *key, const char *field)
{
	char text[256];

	if (find_field("/proc/meminfo", field, text, sizeof(text))) {
		json_object_set_new(host, key,
				    json_integer((json_int_t)(strtoull(text, NULL, 10) * 1024)));
	}
}

static json_int_t count_lines(const char *path)
{
	FILE *file = fopen(path, "re");
	json_int_t n = 0;

	for (int c; file && (c = getc(file)) != EOF;) {
		n += c == '\n';
	}
	if (file) {
		fclose(file);
	}
	return n;
}

static void set_kernel(json_t *host)
{
	struct utsname name;
	struct timespec tick;
	struct statfs fs;

	uname(&name);
	json_object_set_new(host, "kernel", json_sprintf("%s %s", name.sysname, name.release));
	/* The coarse clocks are as fine as the kernel's tick. */
	if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) == 0 && tick.tv_nsec > 0) {
		json_object_set_new(host, "hz", json_integer(1000000000 / tick.tv_nsec));
	}
	set_file(host, "clocksource",
		 "/sys/devices/system/clocksource/clocksource0/current_clocksource");
	if (statfs("/sys/fs/cgroup", &fs) == 0) {
		json_object_set_new(host, "cgroup",
				    json_integer(fs.f_type == CGROUP2_SUPER_MAGIC ? 2 : 1));
	}
	json_object_set_new(host, "mounts", json_integer(count_lines("/proc/self/mountinfo")));
	set_choice(host, "thp", "/sys/kernel/mm/transparent_hugepage/enabled");
	set_choice(host, "thp_shmem", "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
	set_file(host, "ksm", "/sys/kernel/mm/ksm/run");
	set_file(host, "nx_huge_pages", "/sys/module/kvm/parameters/nx_huge_pages");
}

static void set_processor(json_t *host)
{
	enum vmm_host_kind kind;
	char text[256], flags[LINE_BYTES];
	cpu_set_t set;

	json_object_set_new(
		host, "host_kind",
		json_string(vmm_host_kind_detect(&kind) < 0 ? "no KVM" : vmm_host_kind_name(kind)));
	if (find_field("/proc/cpuinfo", "model name", text, sizeof(text))) {
		json_object_set_new(host, "cpu", json_string(text));
	}
	if (find_field("/proc/cpuinfo", "flags", flags, sizeof(flags))) {
		json_object_set_new(host, "virtual_machine",
				    json_boolean(strstr(flags, " hypervisor")));
	}
	json_object_set_new(host, "cores", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
	if (sched_getaffinity(0, sizeof(set), &set) == 0) {
		json_object_set_new(host, "cores_allowed", json_integer(CPU_COUNT(&set)));
	}
	set_file(host, "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
	set_memory(host, "memory_bytes", "MemTotal");
	set_memory(host, "available_bytes", "MemAvailable");
}

json_t *cli_bench_host(void)
{
	json_t *host = json_object();
	double load[1];

	set_processor(host);
	set_kernel(host);
	if (getloadavg(load, 1) == 1) {
		json_object_set_new(host, "load_average", json_real(load[0]));
	}
	json_object_set_new(host, "version", json_string(CLI_VERSION));
	json_object_set_new(host, "git", json_string(CLI_GIT));
	json_object_set_new(host, "build", json_string(CLI_BUILD));
	return host;
}

static const char *text_of(json_t *host, const char *key)
{
	const char *text = json_string_value(json_object_get(host, key));

	return text ? text : "";
}

json_t *cli_bench_warnings(json_t *host)
{
	json_t *warnings = json_array();
	double load = json_real_value(json_object_get(host, "load_average"));
	double cores = (double)json_integer_value(json_object_get(host, "cores"));
	const char *build = text_of(host, "build"), *governor = text_of(host, "governor");

	if (load > LOAD_MOST * cores) {
		json_array_append_new(
			warnings,
			json_sprintf("The load average was %.2f on %.0f cores before the first "
				     "measurement: others ran on this machine. Percentiles above "
				     "the median, rates and shares of processor time suffer.",
				     load, cores));
	}
	if (strncmp(build, "release", 7) != 0 && strncmp(build, "debugoptimized", 14) != 0) {
		json_array_append_new(warnings,
				      json_sprintf("This is a %s build: nothing here is worth "
						   "quoting. Use a release build.",
						   build));
	}
	if (strstr(build, "sanitize")) {
		json_array_append_new(warnings, json_string("This build has sanitizers in it: "
							    "times are several times too long."));
	}
	if (*governor && strcmp(governor, "performance") != 0) {
		json_array_append_new(
			warnings,
			json_sprintf("The frequency governor is \"%s\", not "
				     "\"performance\": short bursts run at a lower clock.",
				     governor));
	}
	if (strcmp(text_of(host, "ksm"), "1") == 0) {
		json_array_append_new(
			warnings, json_string("Kernel samepage merging runs: it takes processor "
					      "time, and memory figures change under it."));
	}
	if (json_integer_value(json_object_get(host, "cgroup")) == 1) {
		json_array_append_new(warnings,
				      json_string("cgroup version 1: making a VM in one can take "
						  "tens of milliseconds."));
	}
	return warnings;
}
