-- Lets credentials that no unfinished batch needs expire soon, and gives those that are needed their whole lifetime back.
-- An enqueue renews its credential together with its batch. So a credential that was renewed since the batches were read, or
-- shortly before, is left alone, and nothing is done if the read is old.
-- KEYS  for each of names: credential
-- ARGV  1 needed: a batch needs them  2 read_at: when the batches were read, ms  3 grace_ms: how long they live once they are
--       not needed  4 keep_ms: their whole lifetime
-- Verdict  how many lifetimes were changed
--@include _clock
local needed, read_at, grace_ms, keep_ms = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local OLD_MS, FRESH_MS = 60000, 600000
local n_changed = 0
if not needed and now_ms() - read_at > OLD_MS then
  return n_changed
end
for i = 1, #KEYS do
  local left = redis.call('PTTL', KEYS[i])
  if needed and left > 0 and left < keep_ms / 2 then
    n_changed = n_changed + redis.call('PEXPIRE', KEYS[i], keep_ms)
  elseif not needed and left > grace_ms and left < keep_ms - FRESH_MS then
    n_changed = n_changed + redis.call('PEXPIRE', KEYS[i], grace_ms)
  end
end
return n_changed
