/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sclmdb - two processes write to an lmdb environment and two read it at the same time.
 *
 * Each transaction of a writer moves one unit from one account to another, so that a reader who sees a whole state sees
 * the same sum. lmdb maps its data file, writes to it by pwrite (or, with --writemap, through the mapping), and keeps
 * its readers and its lock in a second mapped file. Prints the final state; exit status 1 if a sum was wrong.
 */
#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ACCOUNTS 64u
#define START	 1000u
#define TURNS	 150u

static void must(int err, const char *what)
{
	if (!err)
		return;
	printf("%s: %s\n", what, mdb_strerror(err));
	exit(2);
}

static MDB_env *open_env(unsigned int flags)
{
	MDB_env *env;

	must(mdb_env_create(&env), "create");
	must(mdb_env_set_mapsize(env, 32u << 20), "mapsize");
	must(mdb_env_open(env, "env", flags, 0644), "open");
	return env;
}

static uint64_t balance(MDB_txn *txn, MDB_dbi dbi, uint32_t account)
{
	MDB_val k = {sizeof(account), &account}, v;
	uint64_t n;

	must(mdb_get(txn, dbi, &k, &v), "get");
	memcpy(&n, v.mv_data, sizeof(n));
	return n;
}

static void set_balance(MDB_txn *txn, MDB_dbi dbi, uint32_t account, uint64_t n)
{
	uint8_t value[200] = {0}; /* large enough that pages are split and copied */
	MDB_val k = {sizeof(account), &account}, v = {sizeof(value), value};

	memcpy(value, &n, sizeof(n));
	must(mdb_put(txn, dbi, &k, &v, 0), "put");
}

static uint64_t sum(MDB_env *env)
{
	uint64_t total = 0;
	MDB_txn *txn;
	MDB_dbi dbi;

	must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin");
	must(mdb_dbi_open(txn, NULL, 0, &dbi), "dbi");
	for (uint32_t i = 0; i < ACCOUNTS; i++)
		total += balance(txn, dbi, i);
	mdb_txn_abort(txn);
	return total;
}

static void fill(MDB_env *env)
{
	MDB_txn *txn;
	MDB_dbi dbi;

	must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
	must(mdb_dbi_open(txn, NULL, 0, &dbi), "dbi");
	for (uint32_t i = 0; i < ACCOUNTS; i++)
		set_balance(txn, dbi, i, START);
	must(mdb_txn_commit(txn), "commit");
}

static int writer(unsigned int flags, uint32_t seed)
{
	MDB_env *env = open_env(flags);

	for (uint32_t i = 0; i < TURNS; i++) {
		uint32_t from = (seed += 7919) % ACCOUNTS, to = (from + 1 + i % 5) % ACCOUNTS;
		MDB_txn *txn;
		MDB_dbi dbi;

		must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
		must(mdb_dbi_open(txn, NULL, 0, &dbi), "dbi");
		set_balance(txn, dbi, from, balance(txn, dbi, from) - 1);
		set_balance(txn, dbi, to, balance(txn, dbi, to) + 1);
		must(mdb_txn_commit(txn), "commit");
	}
	mdb_env_close(env);
	return 0;
}

static int reader(unsigned int flags)
{
	MDB_env *env = open_env(flags);
	bool ok = true;

	for (uint32_t i = 0; i < 4 * TURNS && ok; i++)
		ok = sum(env) == ACCOUNTS * START;
	mdb_env_close(env);
	return !ok;
}

int main(int argc, char **argv)
{
	unsigned int flags = argc > 1 && !strcmp(argv[1], "--writemap") ? MDB_WRITEMAP : 0;
	MDB_env *env = open_env(flags);
	int status, bad = 0;

	fill(env);
	mdb_env_close(env);
	fflush(stdout);
	for (int i = 0; i < 4; i++) {
		if (fork() == 0)
			_exit(i < 2 ? writer(flags, (uint32_t)i) : reader(flags));
	}
	while (wait(&status) > 0)
		bad |= status != 0;
	env = open_env(flags);
	printf("sum %llu, %s\n", (unsigned long long)sum(env),
	       bad ? "FAILED" : "all readers saw whole states");
	mdb_env_close(env);
	return bad;
}
