# One row per signed-in browser: deleting the row signs it out.
class SessionActivation < ApplicationRecord
  belongs_to :user

  def self.begin!(user, request)
    user.update!(sign_in_count: user.sign_in_count + 1, last_sign_in_at: user.current_sign_in_at, current_sign_in_at: Time.now.utc)
    create!(user:, session_id: SecureRandom.hex, ip: request.remote_ip, user_agent: request.user_agent.to_s)
  end
end
