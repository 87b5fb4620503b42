//! One file per hook, named as the hook, as the program is; and what some have in common.

mod binding;
mod bytes;
mod connect4;
mod connect6;
mod connecting;
mod inet_sock_set_state;
mod post_bind4;
mod post_bind6;
mod sched_process_exit;
mod sk_data_ready;
mod sock_ops;
mod sock_recv_length;
mod sock_send_length;
mod tcp_destroy_sock;
mod tcp_receive_reset;
mod tcp_retransmit_skb;
mod tcp_send_reset;
