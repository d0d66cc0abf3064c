/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wire.h - the size of each structure that crosses a boundary, and the offset of each of its fields, as numbers.
 *
 * Agent, broker and host library are built and replaced one by one: a field that moved must not compile. Broker, agent and
 * host library each include this once. What changes here changes SC_ABI_VERSION, or has a feature bit.
 * tests/docs/test_virtio_sc.py sees to it that no structure and no field is left out.
 */
#ifndef VHOST_SC_WIRE_H
#define VHOST_SC_WIRE_H

#include "attach.h"
#include "channel.h"
#include "control.h"
#include "ops.h"
#include "virtio_sc.h"

#define SC_WIRE_SIZE(type, size) static_assert(sizeof(struct type) == (size), "size of " #type)
#define SC_WIRE_AT(type, field, offset) \
	static_assert(offsetof(struct type, field) == (offset), #type "." #field)

SC_WIRE_SIZE(virtio_sc_config, 16);
SC_WIRE_AT(virtio_sc_config, num_channels, 0);
SC_WIRE_AT(virtio_sc_config, reserved, 4);
SC_WIRE_AT(virtio_sc_config, slot_size, 8);

SC_WIRE_SIZE(sc_dev_info, 24);
SC_WIRE_AT(sc_dev_info, num_channels, 0);
SC_WIRE_AT(sc_dev_info, reserved, 4);
SC_WIRE_AT(sc_dev_info, slot_size, 8);
SC_WIRE_AT(sc_dev_info, window_size, 16);

SC_WIRE_SIZE(sc_dev_doorbell, 8);
SC_WIRE_AT(sc_dev_doorbell, slot, 0);
SC_WIRE_AT(sc_dev_doorbell, fd, 4);

SC_WIRE_SIZE(sc_layout, 32);
SC_WIRE_AT(sc_layout, size, 0);
SC_WIRE_AT(sc_layout, nlanes, 4);
SC_WIRE_AT(sc_layout, entries, 8);
SC_WIRE_AT(sc_layout, lanes_off, 12);
SC_WIRE_AT(sc_layout, slots_off, 16);
SC_WIRE_AT(sc_layout, cqes_off, 20);
SC_WIRE_AT(sc_layout, arena_off, 24);
SC_WIRE_AT(sc_layout, pool_off, 28);

SC_WIRE_SIZE(sc_channel_host, 4096);
SC_WIRE_AT(sc_channel_host, magic, 0);
SC_WIRE_AT(sc_channel_host, abi, 4);
SC_WIRE_AT(sc_channel_host, layout, 8);
SC_WIRE_AT(sc_channel_host, session, 40);
SC_WIRE_AT(sc_channel_host, slot, 44);
SC_WIRE_AT(sc_channel_host, incarnation, 64);
SC_WIRE_AT(sc_channel_host, lanes_gen, 128);
SC_WIRE_AT(sc_channel_host, lanes, 192);

SC_WIRE_SIZE(sc_channel_guest, 4096);
SC_WIRE_AT(sc_channel_guest, asleep, 0);
SC_WIRE_AT(sc_channel_guest, heartbeat, 64);
SC_WIRE_AT(sc_channel_guest, incarnation, 72);

SC_WIRE_SIZE(sc_lane, 256);
SC_WIRE_AT(sc_lane, tail, 0);
SC_WIRE_AT(sc_lane, host_asleep, 64);
SC_WIRE_AT(sc_lane, depth_log2, 68);
SC_WIRE_AT(sc_lane, done, 128);
SC_WIRE_AT(sc_lane, head, 192);

SC_WIRE_SIZE(sc_slot, 64);
SC_WIRE_AT(sc_slot, op, 0);
SC_WIRE_AT(sc_slot, flags, 2);
SC_WIRE_AT(sc_slot, tag, 4);
SC_WIRE_AT(sc_slot, handle, 8);
SC_WIRE_AT(sc_slot, off, 16);
SC_WIRE_AT(sc_slot, buf, 24);
SC_WIRE_AT(sc_slot, len, 28);
SC_WIRE_AT(sc_slot, buf2, 32);
SC_WIRE_AT(sc_slot, len2, 36);
SC_WIRE_AT(sc_slot, arg0, 40);
SC_WIRE_AT(sc_slot, arg1, 48);
SC_WIRE_AT(sc_slot, arg2, 56);

SC_WIRE_SIZE(sc_cqe, 16);
SC_WIRE_AT(sc_cqe, tag, 0);
SC_WIRE_AT(sc_cqe, flags, 4);
SC_WIRE_AT(sc_cqe, res, 8);

SC_WIRE_SIZE(sc_msg_hdr, 16);
SC_WIRE_AT(sc_msg_hdr, type, 0);
SC_WIRE_AT(sc_msg_hdr, flags, 2);
SC_WIRE_AT(sc_msg_hdr, len, 4);
SC_WIRE_AT(sc_msg_hdr, seq, 8);
SC_WIRE_AT(sc_msg_hdr, slot, 12);

SC_WIRE_SIZE(sc_msg_hello, 1200);
SC_WIRE_AT(sc_msg_hello, h, 0);
SC_WIRE_AT(sc_msg_hello, abi, 16);
SC_WIRE_AT(sc_msg_hello, role, 20);
SC_WIRE_AT(sc_msg_hello, features, 24);
SC_WIRE_AT(sc_msg_hello, num_channels, 32);
SC_WIRE_AT(sc_msg_hello, npollers, 36);
SC_WIRE_AT(sc_msg_hello, slot_size, 40);
SC_WIRE_AT(sc_msg_hello, version, 48);
SC_WIRE_AT(sc_msg_hello, kernel, 112);
SC_WIRE_AT(sc_msg_hello, modules, 176);

SC_WIRE_SIZE(sc_msg_status, 24);
SC_WIRE_AT(sc_msg_status, h, 0);
SC_WIRE_AT(sc_msg_status, status, 16);
SC_WIRE_AT(sc_msg_status, session, 20);

SC_WIRE_SIZE(sc_msg_log, 1044);
SC_WIRE_AT(sc_msg_log, h, 0);
SC_WIRE_AT(sc_msg_log, level, 16);
SC_WIRE_AT(sc_msg_log, text, 20);

SC_WIRE_SIZE(sc_msg_start, 56);
SC_WIRE_AT(sc_msg_start, h, 0);
SC_WIRE_AT(sc_msg_start, incarnation, 16);
SC_WIRE_AT(sc_msg_start, abi, 20);
SC_WIRE_AT(sc_msg_start, features, 24);
SC_WIRE_AT(sc_msg_start, epoch, 32);
SC_WIRE_AT(sc_msg_start, state_size, 40);
SC_WIRE_AT(sc_msg_start, max_spin_us, 44);
SC_WIRE_AT(sc_msg_start, own, 48);
SC_WIRE_AT(sc_msg_start, reserved, 52);

SC_WIRE_SIZE(sc_msg_attach, 1104);
SC_WIRE_AT(sc_msg_attach, h, 0);
SC_WIRE_AT(sc_msg_attach, layout, 16);
SC_WIRE_AT(sc_msg_attach, session, 48);
SC_WIRE_AT(sc_msg_attach, process, 52);
SC_WIRE_AT(sc_msg_attach, pid, 56);
SC_WIRE_AT(sc_msg_attach, uid, 60);
SC_WIRE_AT(sc_msg_attach, gid, 64);
SC_WIRE_AT(sc_msg_attach, ngroups, 68);
SC_WIRE_AT(sc_msg_attach, features, 72);
SC_WIRE_AT(sc_msg_attach, groups, 80);

SC_WIRE_SIZE(sc_msg_detach, 24);
SC_WIRE_AT(sc_msg_detach, h, 0);
SC_WIRE_AT(sc_msg_detach, session, 16);
SC_WIRE_AT(sc_msg_detach, reserved, 20);

SC_WIRE_SIZE(sc_msg_proc_exit, 24);
SC_WIRE_AT(sc_msg_proc_exit, h, 0);
SC_WIRE_AT(sc_msg_proc_exit, process, 16);
SC_WIRE_AT(sc_msg_proc_exit, reserved, 20);

SC_WIRE_SIZE(sc_msg_release, 2072);
SC_WIRE_AT(sc_msg_release, h, 0);
SC_WIRE_AT(sc_msg_release, count, 16);
SC_WIRE_AT(sc_msg_release, reserved, 20);
SC_WIRE_AT(sc_msg_release, tickets, 24);

SC_WIRE_SIZE(sc_msg_segment, 48);
SC_WIRE_AT(sc_msg_segment, h, 0);
SC_WIRE_AT(sc_msg_segment, number, 16);
SC_WIRE_AT(sc_msg_segment, reserved, 20);
SC_WIRE_AT(sc_msg_segment, ticket, 24);
SC_WIRE_AT(sc_msg_segment, offset, 32);
SC_WIRE_AT(sc_msg_segment, size, 40);

SC_WIRE_SIZE(sc_msg_segment_status, 24);
SC_WIRE_AT(sc_msg_segment_status, h, 0);
SC_WIRE_AT(sc_msg_segment_status, status, 16);
SC_WIRE_AT(sc_msg_segment_status, number, 20);

SC_WIRE_SIZE(sc_state_header, 2184);
SC_WIRE_AT(sc_state_header, magic, 0);
SC_WIRE_AT(sc_state_header, abi, 4);
SC_WIRE_AT(sc_state_header, epoch, 8);
SC_WIRE_AT(sc_state_header, incarnation, 16);
SC_WIRE_AT(sc_state_header, npollers, 20);
SC_WIRE_AT(sc_state_header, heartbeat, 24);
SC_WIRE_AT(sc_state_header, ready_ns, 32);
SC_WIRE_AT(sc_state_header, ops, 64);
SC_WIRE_AT(sc_state_header, errors, 1088);
SC_WIRE_AT(sc_state_header, bytes_read, 2112);
SC_WIRE_AT(sc_state_header, bytes_written, 2120);
SC_WIRE_AT(sc_state_header, polls_spun, 2128);
SC_WIRE_AT(sc_state_header, polls_slept, 2136);
SC_WIRE_AT(sc_state_header, doorbells, 2144);
SC_WIRE_AT(sc_state_header, poller_ns, 2152);
SC_WIRE_AT(sc_state_header, worker_ns, 2160);
SC_WIRE_AT(sc_state_header, open_files, 2168);
SC_WIRE_AT(sc_state_header, sessions, 2176);

SC_WIRE_SIZE(sc_cross, 16);
SC_WIRE_AT(sc_cross, kind, 0);
SC_WIRE_AT(sc_cross, len, 4);
SC_WIRE_AT(sc_cross, nofollow_last, 8);
SC_WIRE_AT(sc_cross, reserved, 12);
SC_WIRE_AT(sc_cross, rest, 16);

SC_WIRE_SIZE(sc_stat, 144);
SC_WIRE_AT(sc_stat, mask, 0);
SC_WIRE_AT(sc_stat, mode, 4);
SC_WIRE_AT(sc_stat, ino, 8);
SC_WIRE_AT(sc_stat, size, 16);
SC_WIRE_AT(sc_stat, blocks, 24);
SC_WIRE_AT(sc_stat, nlink, 32);
SC_WIRE_AT(sc_stat, blksize, 36);
SC_WIRE_AT(sc_stat, uid, 40);
SC_WIRE_AT(sc_stat, gid, 44);
SC_WIRE_AT(sc_stat, dev_major, 48);
SC_WIRE_AT(sc_stat, dev_minor, 52);
SC_WIRE_AT(sc_stat, rdev_major, 56);
SC_WIRE_AT(sc_stat, rdev_minor, 60);
SC_WIRE_AT(sc_stat, attributes, 64);
SC_WIRE_AT(sc_stat, attributes_mask, 72);
SC_WIRE_AT(sc_stat, atime_sec, 80);
SC_WIRE_AT(sc_stat, mtime_sec, 88);
SC_WIRE_AT(sc_stat, ctime_sec, 96);
SC_WIRE_AT(sc_stat, btime_sec, 104);
SC_WIRE_AT(sc_stat, atime_nsec, 112);
SC_WIRE_AT(sc_stat, mtime_nsec, 116);
SC_WIRE_AT(sc_stat, ctime_nsec, 120);
SC_WIRE_AT(sc_stat, btime_nsec, 124);
SC_WIRE_AT(sc_stat, mnt_id, 128);
SC_WIRE_AT(sc_stat, dio_mem_align, 136);
SC_WIRE_AT(sc_stat, dio_offset_align, 140);

SC_WIRE_SIZE(sc_times, 24);
SC_WIRE_AT(sc_times, atime_sec, 0);
SC_WIRE_AT(sc_times, mtime_sec, 8);
SC_WIRE_AT(sc_times, atime_nsec, 16);
SC_WIRE_AT(sc_times, mtime_nsec, 20);

SC_WIRE_SIZE(sc_statfs, 88);
SC_WIRE_AT(sc_statfs, type, 0);
SC_WIRE_AT(sc_statfs, bsize, 8);
SC_WIRE_AT(sc_statfs, blocks, 16);
SC_WIRE_AT(sc_statfs, bfree, 24);
SC_WIRE_AT(sc_statfs, bavail, 32);
SC_WIRE_AT(sc_statfs, files, 40);
SC_WIRE_AT(sc_statfs, ffree, 48);
SC_WIRE_AT(sc_statfs, fsid, 56);
SC_WIRE_AT(sc_statfs, namelen, 64);
SC_WIRE_AT(sc_statfs, frsize, 72);
SC_WIRE_AT(sc_statfs, flags, 80);

SC_WIRE_SIZE(sc_dirent, 24);
SC_WIRE_AT(sc_dirent, ino, 0);
SC_WIRE_AT(sc_dirent, off, 8);
SC_WIRE_AT(sc_dirent, reclen, 16);
SC_WIRE_AT(sc_dirent, namelen, 18);
SC_WIRE_AT(sc_dirent, type, 20);
SC_WIRE_AT(sc_dirent, name, 24);

SC_WIRE_SIZE(sc_lock, 32);
SC_WIRE_AT(sc_lock, type, 0);
SC_WIRE_AT(sc_lock, whence, 4);
SC_WIRE_AT(sc_lock, start, 8);
SC_WIRE_AT(sc_lock, len, 16);
SC_WIRE_AT(sc_lock, pid, 24);
SC_WIRE_AT(sc_lock, reserved, 28);

SC_WIRE_SIZE(sc_attach_hdr, 16);
SC_WIRE_AT(sc_attach_hdr, magic, 0);
SC_WIRE_AT(sc_attach_hdr, type, 4);
SC_WIRE_AT(sc_attach_hdr, flags, 6);
SC_WIRE_AT(sc_attach_hdr, seq, 8);
SC_WIRE_AT(sc_attach_hdr, len, 12);

SC_WIRE_SIZE(sc_attach_req, 48);
SC_WIRE_AT(sc_attach_req, h, 0);
SC_WIRE_AT(sc_attach_req, abi_min, 16);
SC_WIRE_AT(sc_attach_req, abi_max, 20);
SC_WIRE_AT(sc_attach_req, features, 24);
SC_WIRE_AT(sc_attach_req, role, 32);
SC_WIRE_AT(sc_attach_req, wait_ms, 36);
SC_WIRE_AT(sc_attach_req, tickets, 40);
SC_WIRE_AT(sc_attach_req, reserved, 44);

SC_WIRE_SIZE(sc_attach_rep, 600);
SC_WIRE_AT(sc_attach_rep, h, 0);
SC_WIRE_AT(sc_attach_rep, status, 16);
SC_WIRE_AT(sc_attach_rep, abi, 20);
SC_WIRE_AT(sc_attach_rep, features, 24);
SC_WIRE_AT(sc_attach_rep, layout, 32);
SC_WIRE_AT(sc_attach_rep, session, 64);
SC_WIRE_AT(sc_attach_rep, slot, 68);
SC_WIRE_AT(sc_attach_rep, incarnation, 72);
SC_WIRE_AT(sc_attach_rep, deadline_ms, 76);
SC_WIRE_AT(sc_attach_rep, loopback, 80);
SC_WIRE_AT(sc_attach_rep, ntickets, 84);
SC_WIRE_AT(sc_attach_rep, tickets, 88);
SC_WIRE_AT(sc_attach_rep, text, 344);

SC_WIRE_SIZE(sc_attach_tickets, 280);
SC_WIRE_AT(sc_attach_tickets, h, 0);
SC_WIRE_AT(sc_attach_tickets, status, 16);
SC_WIRE_AT(sc_attach_tickets, count, 20);
SC_WIRE_AT(sc_attach_tickets, tickets, 24);

SC_WIRE_SIZE(sc_ticket_name, 32);
SC_WIRE_AT(sc_ticket_name, ticket, 0);
SC_WIRE_AT(sc_ticket_name, handle, 8);
SC_WIRE_AT(sc_ticket_name, secret, 16);
SC_WIRE_AT(sc_ticket_name, flags, 24);
SC_WIRE_AT(sc_ticket_name, mode, 28);

SC_WIRE_SIZE(sc_attach_name, 48);
SC_WIRE_AT(sc_attach_name, h, 0);
SC_WIRE_AT(sc_attach_name, name, 16);

SC_WIRE_SIZE(sc_attach_claim, 1048);
SC_WIRE_AT(sc_attach_claim, h, 0);
SC_WIRE_AT(sc_attach_claim, status, 16);
SC_WIRE_AT(sc_attach_claim, count, 20);
SC_WIRE_AT(sc_attach_claim, names, 24);

SC_WIRE_SIZE(sc_attach_event, 24);
SC_WIRE_AT(sc_attach_event, h, 0);
SC_WIRE_AT(sc_attach_event, incarnation, 16);
SC_WIRE_AT(sc_attach_event, nfds, 20);

SC_WIRE_SIZE(sc_attach_segment, 40);
SC_WIRE_AT(sc_attach_segment, h, 0);
SC_WIRE_AT(sc_attach_segment, status, 16);
SC_WIRE_AT(sc_attach_segment, reserved, 20);
SC_WIRE_AT(sc_attach_segment, size, 24);
SC_WIRE_AT(sc_attach_segment, ticket, 32);

#undef SC_WIRE_SIZE
#undef SC_WIRE_AT

#endif
