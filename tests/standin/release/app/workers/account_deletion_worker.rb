# What a person asked for on the page for deleting the account.
class AccountDeletionWorker
  include Sidekiq::Job
  sidekiq_options queue: "pull"

  def perform(account_id) = Account.find_by(id: account_id)&.delete_for_good!
end
