# Runs once, after the schema was loaded into an empty database; running it again changes nothing.
account = { "username" => "mastodon.internal", "actor_type" => "Application", "locked" => true }
Account.create_with(account).find_or_create_by!(id: Account::INSTANCE_ACTOR_ID)

UserRole.everyone
{ "Moderator" => [1_049_884, 10], "Admin" => [2_031_612, 100], "Owner" => [1, 1000] }.each do |name, (permissions, position)|
  UserRole.create_with(permissions:, position:, highlighted: true).find_or_create_by!(name:)
end

%w[abuse admin administrator help helpdesk instance moderator owner root security server staff support webmaster].each do |name|
  UsernameBlock.create_with(exact: true, username: name).find_or_create_by!(normalized_username: name)
end
UsernameBlock.create_with(exact: false, username: "mastodon").find_or_create_by!(normalized_username: "mastodon")
