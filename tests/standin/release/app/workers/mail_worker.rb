class MailWorker
  include Sidekiq::Job
  sidekiq_options queue: "mailers"

  def perform(kind, user_id)
    user = User.find_by(id: user_id)
    UserMailer.public_send(kind, user).deliver_now if user
  end
end
