-- Erases requests and their answers for good. A request that waits in a batch which is not being erased is left alone, as
-- somebody has asked for it again.
-- KEYS  for each of request_ids: request, result
-- ARGV  1 batch_ids: the batches that are being erased, comma separated
-- Verdict  a list: how many answers were erased, how many requests were left alone
--@include _sound
--@include _request
local erased, n_answers, n_left = ',' .. ARGV[1] .. ',', 0, 0
for i = 1, #KEYS, 2 do
  local owner = flight(KEYS[i])
  if owner and not string.find(erased, ',' .. owner .. ',', 1, true) then
    n_left = n_left + 1
  else
    redis.call('UNLINK', KEYS[i])
    n_answers = n_answers + redis.call('UNLINK', KEYS[i + 1])
  end
end
return {n_answers, n_left}
