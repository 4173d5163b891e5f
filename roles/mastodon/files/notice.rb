# A public post in the name of an account, made once: what the owner says when another account was shut (lockdown).
# Standard input: JSON with `account`, `text`, `key`. Prints the post's number.
given = JSON.parse($stdin.read)
account = Account.find_local(given["account"]) || abort("there is no account @#{given["account"]}")
puts PostStatusService.new.call(account, text: given["text"], visibility: "public", idempotency: given["key"]).id
