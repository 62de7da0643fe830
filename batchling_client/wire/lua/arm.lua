-- Stores that the create is about to be sent: from here on a batch may exist that we were not told of. What an earlier
-- run of Redis may have known of a create, and this one not, is covered by it from here on.
-- KEYS  1 batch
-- ARGV  1 token  2 account it is sent under, a digest  3 doubted: it is not; a create that an earlier run of Redis may have
--       known of is doubted, and waited for
-- Verdicts  'OK'  'STALE'  'NOT_ON_DISK' by the stub: OK, but not confirmed to be on the disks that it was asked to wait for
--@include _clock
--@include _fence
--@include _room
--@include _server
--@include _sound
local batch = KEYS[1]
local token, account, doubted = ARGV[1], ARGV[2], ARGV[3] == '1'
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'submitting' then
  return 'STALE'
end
go_on_when_full(batch)
if doubted then
  redis.call('HSET', batch, 'doubted_at', now_ms(), 'server', server_id())
  return 'OK'
end
redis.call('HSET', batch, 'create_at', now_ms(), 'account', account, 'server', server_id())
redis.call('HDEL', batch, 'doubted_at')
count(batch, 'n_creates', 1)
return 'OK'
