-- Stores that the create is about to be sent: from here on a batch may exist that we were not told of. What an earlier
-- run of Redis may have known of a create, and this one not, is covered by it from here on.
-- KEYS  1 batch
-- ARGV  1 token  2 the account it is sent under, a digest
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
--@include _room
--@include _server
--@include _sound
local batch = KEYS[1]
local token, account = ARGV[1], ARGV[2]
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'submitting' then
  return 'STALE'
end
go_on_when_full(batch)
redis.call('HSET', batch, 'create_at', now_ms(), 'account', account, 'server', server_id())
count(batch, 'n_creates', 1)
return 'OK'
